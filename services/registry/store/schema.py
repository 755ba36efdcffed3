"""The form of the tables: a database is brought up to date when the registry starts, and one that
is ahead is refused.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from shared.errors import Misconfigured

HEAD_REVISION = "head"

_STEPS = Path(__file__).parent / "migrations"
_LOCK = 0x72617463686574  # any number that nothing else in the database locks


class SchemaTooNew(Misconfigured):
    """The database was made by a newer registry than this one."""


def migrate(engine: Engine, revision: str = HEAD_REVISION) -> None:
    """Take the steps that a database has not come by yet, up to `step`: all or none. Several
    processes may try at once; one does it.

    A database whose tables were made before there were steps is taken over: the first step makes
    the tables that are missing. Raises DatabaseAhead.
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
        configuration.set_main_option("script_location", str(_STEPS).replace("%", "%%"))
        configuration.attributes["connection"] = connection
        _refuse_what_is_ahead(connection, ScriptDirectory.from_config(configuration))
        command.upgrade(configuration, revision)


def _lock(connection: Connection) -> None:
    """SQLite's transactions hold the write lock from their beginning."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})


def _refuse_what_is_ahead(connection: Connection, steps: ScriptDirectory) -> None:
    known = {step.revision for step in steps.walk_revisions()}
    found = MigrationContext.configure(connection).get_current_heads()
    if unknown := set(found) - known:
        raise SchemaTooNew(
            f"RATCHET_DATABASE: the database is at step {', '.join(sorted(unknown))}, and "
            "this registry knows steps up to "
            f"{steps.get_current_head()}; start the newer release that brought it there, or "
            "restore a copy from before"
        )
