"""The database: opened once, used in transactions from worker threads.

Transactions take place as if one came after the other: SQLite lets one write at a time, PostgreSQL
is asked for SERIALIZABLE and ends one of two that it cannot put in an order; that one is done
again.
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
    "Session",
    "TransactionConflict",
    "UnstorableValue",
]

R = TypeVar("R")

_IN_CONFLICT = frozenset({"40001", "40P01"})
"""PostgreSQL's codes for a serialisation failure and for a deadlock."""

_THERE_ALREADY = "23505"
"""Its code for a second row where one may be. It comes also in place of a serialisation failure
(PostgreSQL's manual, 13.5).
"""

_ATTEMPTS = 20
_ATTEMPTS_AT_WHAT_IS_THERE = 3
_LONGEST_PAUSE_SECONDS = 0.5


class DatabaseUnavailable(Unavailable):
    """The database does not answer, or is locked for too long."""


class TransactionConflict(Unavailable):
    """The transaction could not be put in an order with others that ran beside it; nothing of it
    happened.
    """


class UnstorableValue(Unprocessable):
    """A value that a column does not take: too long, too large, or a text with a NUL."""


class Database:
    """SQL behind three calls. `password_file` holds the password, where the URL does not.

    Raises SettingsError for a URL that is none, and for a file that cannot be read or is empty.
    """

    def __init__(self, url: str, password_file: Path | None = None) -> None:
        try:
            parsed = make_url(url)
            if password_file is not None:
                parsed = parsed.set(password=_password_in(password_file))
            if parsed.get_backend_name() == "sqlite" and parsed.database:
                Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
            serially = (
                {"isolation_level": "SERIALIZABLE"}
                if parsed.get_backend_name() == "postgresql"
                else {}
            )
            self._engine = create_engine(parsed, pool_pre_ping=True, **serially)
        except (ArgumentError, ImportError) as error:
            raise SettingsError(
                f"RATCHET_DATABASE: expected an SQLAlchemy URL whose driver is installed: {error}"
            ) from error
        if self._engine.dialect.name == "sqlite":
            _adapt_to_sqlite(self._engine)

    @property
    def folder(self) -> Path | None:
        """Where its file lies; None when it has none on this machine."""
        url = self._engine.url
        is_file = url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:")
        return Path(str(url.database)).parent if is_file else None

    def migrate(self) -> None:
        """Have the tables in the form that this registry knows. Raises DatabaseUnavailable or
        DatabaseAhead.
        """
        with _in_our_words():
            migrate(self._engine)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Everything in the body happens, or nothing. Raises DatabaseUnavailable, InConflict or
        Unstorable.
        """
        with (
            _in_our_words(),
            Session(self._engine, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    def run_sync(self, work: Callable[[Session], R]) -> R:
        """Do `work` in a transaction, again from its beginning where it was in conflict: it changes
        nothing but its session.
        """
        for attempt in range(_ATTEMPTS - 1):
            try:
                with self.transaction() as session:
                    return work(session)
            except TransactionConflict:
                pass
            except IntegrityError as error:
                # Two that met may both have written what may be there once; only what is still
                # refused then is a fault.
                if (
                    getattr(error.orig, "sqlstate", None) != _THERE_ALREADY
                    or attempt >= _ATTEMPTS_AT_WHAT_IS_THERE
                ):
                    raise
            # Those in conflict wait for different times, so that they do not meet again.
            time.sleep(
                _LONGEST_PAUSE_SECONDS
                * (attempt + 1)
                / _ATTEMPTS
                * hash_fraction(str(threading.get_ident()), attempt)
            )
        with self.transaction() as session:
            return work(session)

    async def run(self, work: Callable[[Session], R]) -> R:
        """As `do`, in a thread, so that the event loop goes on."""
        return await asyncio.to_thread(self.run_sync, work)

    def close(self) -> None:
        self._engine.dispose()


@contextmanager
def _in_our_words() -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise UnstorableValue(f"the database does not take a value: {error.orig}") from error
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) in _IN_CONFLICT:
            raise TransactionConflict(f"a transaction met another: {error.orig}") from error
        if isinstance(error, OperationalError):
            raise DatabaseUnavailable(f"the database does not answer: {error.orig}") from error
        if error.connection_invalidated:
            raise DatabaseUnavailable(f"the database went away: {error.orig}") from error
        raise


def _adapt_to_sqlite(engine: Engine) -> None:
    """Let writers queue: a transaction takes the write lock when it begins, where it would
    otherwise fail in the middle.
    """

    @event.listens_for(engine, "connect")
    def connect(connection: Any, record: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA busy_timeout=10000")
        _write_ahead(connection)
        connection.execute("PRAGMA synchronous=FULL")

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _write_ahead(connection: Any) -> None:
    """Have the file in WAL mode, which it stays in. Several processes may find it new at once, and
    SQLite does not let them queue here.
    """
    for attempt in range(_ATTEMPTS):
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(
                _LONGEST_PAUSE_SECONDS
                * (attempt + 1)
                / _ATTEMPTS
                * hash_fraction(str(threading.get_ident()), attempt)
            )


def _password_in(file: Path) -> str:
    try:
        password = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"RATCHET_DATABASE_PASSWORD_FILE: expected a file with a password, {file}: {error}"
        ) from error
    if not password:
        raise SettingsError(f"RATCHET_DATABASE_PASSWORD_FILE: {file} is empty")
    return password
