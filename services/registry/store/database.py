"""The database: opened once, used in transactions from worker threads."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.orm import Session

from services.registry.store.tables import Table
from shared.errors import SettingsError, Unavailable

R = TypeVar("R")


class DatabaseUnavailable(Unavailable):
    """The database does not answer, or is locked for too long."""


class Database:
    """SQL behind two calls. Raises SettingsError for a URL that is none."""

    def __init__(self, url: str) -> None:
        try:
            parsed = make_url(url)
            if parsed.get_backend_name() == "sqlite" and parsed.database:
                Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
            self._engine = create_engine(parsed, pool_pre_ping=True)
        except (ArgumentError, ImportError) as error:
            raise SettingsError(f"RATCHET_DATABASE: expected an SQLAlchemy URL whose driver is installed: {error}") from error
        if self._engine.dialect.name == "sqlite":
            _adapt_to_sqlite(self._engine)

    def create(self) -> None:
        """Make the tables that are missing."""
        Table.metadata.create_all(self._engine)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Everything in the body happens, or nothing. Raises DatabaseUnavailable."""
        try:
            with Session(self._engine, expire_on_commit=False) as session, session.begin():
                yield session
        except OperationalError as error:
            raise DatabaseUnavailable(f"the database does not answer: {error.orig}") from error
        except DBAPIError as error:
            if error.connection_invalidated:
                raise DatabaseUnavailable(f"the database went away: {error.orig}") from error
            raise

    async def run(self, work: Callable[[Session], R]) -> R:
        """Do `work` in a transaction, in a thread, so that the event loop goes on."""

        def in_transaction() -> R:
            with self.transaction() as session:
                return work(session)

        return await asyncio.to_thread(in_transaction)

    def close(self) -> None:
        self._engine.dispose()


def _adapt_to_sqlite(engine: Engine) -> None:
    """Let writers queue: a transaction takes the write lock when it begins, where it would otherwise fail in the middle."""

    @event.listens_for(engine, "connect")
    def connect(connection: Any, record: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA busy_timeout=10000")

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
