"""The database: opened once, used in transactions from worker threads.

Transactions are serialisable: SQLite allows one writer at a time; PostgreSQL runs at SERIALIZABLE
and aborts one of two conflicting transactions, which is then retried.

The retries here are not `shared.service.retry`: they run in worker threads, repeat on conflicts
only, and pause for different times so that conflicting transactions do not meet again.
"""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, OperationalError
from sqlalchemy.orm import Session

from services.registry.store.schema import migrate
from shared.errors import SettingsError, Unavailable, Unprocessable
from shared.identity import hash_fraction

__all__ = [
    "Database",
    "DatabaseUnavailable",
    "RefusedByDatabase",
    "Session",
    "TransactionConflict",
    "UnstorableValue",
]

R = TypeVar("R")

_CONFLICT_CODES = frozenset({"40001", "40P01"})
"""PostgreSQL's codes for a serialisation failure and a deadlock."""

_UNIQUE_VIOLATION = "23505"
"""PostgreSQL's code for a unique violation, which may also stand for a serialisation failure
(PostgreSQL manual, 13.5).
"""

_ATTEMPTS = 20
_UNIQUE_VIOLATION_ATTEMPTS = 3
_MAX_PAUSE_SECONDS = 0.5


class DatabaseUnavailable(Unavailable):
    """The database does not respond, or is locked for too long."""


class TransactionConflict(Unavailable):
    """The transaction conflicted with a concurrent one and was rolled back."""


class UnstorableValue(Unprocessable):
    """A value that a column cannot store: too long, too large, or a text with a NUL character."""


RefusedByDatabase = IntegrityError
"""A change that breaks an invariant, such as a second run of a batch; the transaction is rolled
back.
"""

SessionInfo = dict[Any, Any]


class Database:
    """Runs work in transactions. `password_file` has the password when the URL does not.

    Raises SettingsError for an invalid URL, and for a password file that is unreadable or empty.
    """

    def __init__(self, url: str, password_file: Path | None = None) -> None:
        try:
            parsed = make_url(url)
            if password_file is not None:
                parsed = parsed.set(password=_read_password(password_file))
            if parsed.get_backend_name() == "sqlite" and parsed.database:
                Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
            isolation = (
                {"isolation_level": "SERIALIZABLE"}
                if parsed.get_backend_name() == "postgresql"
                else {}
            )
            self._engine = create_engine(parsed, pool_pre_ping=True, **isolation)
        except (ArgumentError, ImportError) as error:
            raise SettingsError(
                f"RATCHET_DATABASE: expected an SQLAlchemy URL whose driver is installed: {error}"
            ) from error
        if self._engine.dialect.name == "sqlite":
            _adapt_to_sqlite(self._engine)
        self._commit_listeners: list[Callable[[SessionInfo], None]] = []

    @property
    def folder(self) -> Path | None:
        """The folder of the database file; None when it is not a file on this machine."""
        url = self._engine.url
        is_file = url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:")
        return Path(str(url.database)).parent if is_file else None

    def migrate(self) -> None:
        """Apply the missing migrations. Raises DatabaseUnavailable or SchemaTooNew."""
        with _translate_errors():
            migrate(self._engine)

    @contextmanager
    def transaction(self, info: SessionInfo | None = None) -> Iterator[Session]:
        """Commit everything in the body, or nothing. `info` is what the session's `info` holds.

        Raises DatabaseUnavailable, TransactionConflict or UnstorableValue.
        """
        with (
            _translate_errors(),
            Session(self._engine, expire_on_commit=False, info=info) as session,
        ):
            with session.begin():
                yield session
            for listener in self._commit_listeners:
                listener(session.info)

    def on_commit(self, listener: Callable[[SessionInfo], None]) -> None:
        """Call `listener` with a session's `info` after each commit, in the thread of the
        transaction.
        """
        self._commit_listeners.append(listener)

    def run_sync(self, work: Callable[[Session], R], info: SessionInfo | None = None) -> R:
        """Run `work` in a transaction and return its result. After a conflict it runs again from
        the start, so it must change nothing but its session.
        """
        for attempt in range(_ATTEMPTS - 1):
            try:
                with self.transaction(info) as session:
                    return work(session)
            except TransactionConflict:
                pass
            except IntegrityError as error:
                # Two concurrent transactions may insert the same unique row; it is an error only if
                # it repeats.
                if (
                    getattr(error.orig, "sqlstate", None) != _UNIQUE_VIOLATION
                    or attempt >= _UNIQUE_VIOLATION_ATTEMPTS
                ):
                    raise
            _pause(attempt)
        with self.transaction(info) as session:
            return work(session)

    async def run(self, work: Callable[[Session], R], info: SessionInfo | None = None) -> R:
        """Run `run_sync` in a worker thread."""
        return await asyncio.to_thread(self.run_sync, work, info)

    def close(self) -> None:
        self._engine.dispose()


@contextmanager
def _translate_errors() -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise UnstorableValue(f"the database cannot store a value: {error.orig}") from error
    except OverflowError as error:  # from SQLite's driver, which SQLAlchemy does not translate
        raise UnstorableValue(f"the database cannot store a value: {error}") from error
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) in _CONFLICT_CODES:
            raise TransactionConflict(
                f"a transaction conflicted with another: {error.orig}"
            ) from error
        if isinstance(error, OperationalError):
            raise DatabaseUnavailable(f"the database does not respond: {error.orig}") from error
        if error.connection_invalidated:
            raise DatabaseUnavailable(
                f"the connection to the database was lost: {error.orig}"
            ) from error
        raise


def _adapt_to_sqlite(engine: Engine) -> None:
    """Let writers queue: each transaction takes the write lock at its start instead of failing
    later.
    """

    @event.listens_for(engine, "connect")
    def connect(connection: Any, record: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA busy_timeout=10000")
        _enable_wal(connection)
        connection.execute("PRAGMA synchronous=FULL")

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _enable_wal(connection: Any) -> None:
    """Switch the file to WAL mode permanently. Retries, since SQLite does not queue several
    processes that do this at once.
    """
    for attempt in range(_ATTEMPTS):
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            if attempt == _ATTEMPTS - 1:
                raise
            _pause(attempt)


def _pause(attempt: int) -> None:
    """Wait a time that differs by thread and grows with the attempts."""
    share = hash_fraction(str(threading.get_ident()), attempt)
    time.sleep(_MAX_PAUSE_SECONDS * (attempt + 1) / _ATTEMPTS * share)


def _read_password(file: Path) -> str:
    try:
        password = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"RATCHET_DATABASE_PASSWORD_FILE: expected a file with a password, {file}: {error}"
        ) from error
    if not password:
        raise SettingsError(f"RATCHET_DATABASE_PASSWORD_FILE: {file} is empty")
    return password
