"""Migrations: the registry migrates its database at start, and refuses a database of a newer
release.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from shared.errors import Misconfigured

HEAD_REVISION = "head"

_MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK = 0x72617463686574  # any number that nothing else in the database locks


class SchemaTooNew(Misconfigured):
    """The database has migrations of a newer release of the registry."""


def migrate(engine: Engine, revision: str = HEAD_REVISION) -> None:
    """Apply the missing migrations up to `revision`, all or none. Several processes may call this
    at once; one of them migrates.

    A database whose tables are older than the migrations is adopted: the first migration creates
    the missing tables. Raises SchemaTooNew.
    """
    # Each statement has to see what was committed while this process waited for the lock.
    isolated = (
        engine.execution_options(isolation_level="READ COMMITTED")
        if engine.dialect.name == "postgresql"
        else engine
    )
    with isolated.begin() as connection:
        _lock(connection)
        configuration = Config()
        configuration.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
        configuration.set_main_option("recursive_version_locations", "true")
        configuration.attributes["connection"] = connection
        _refuse_newer_schema(connection, ScriptDirectory.from_config(configuration))
        command.upgrade(configuration, revision)


def _lock(connection: Connection) -> None:
    """SQLite's transactions hold the write lock from their beginning."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})


def _refuse_newer_schema(connection: Connection, migrations: ScriptDirectory) -> None:
    revisions = {migration.revision for migration in migrations.walk_revisions()}
    applied = MigrationContext.configure(connection).get_current_heads()
    if unknown := set(applied) - revisions:
        raise SchemaTooNew(
            f"RATCHET_DATABASE: the database is at migration {', '.join(sorted(unknown))}, this "
            f"release has migrations up to {migrations.get_current_head()}; start the newer "
            "release, or restore a backup from before the upgrade"
        )
