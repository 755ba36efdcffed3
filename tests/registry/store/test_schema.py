"""Migrations keep all data and run once, newer schemas are refused, and the database enforces the
invariants.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, inspect, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

import services.registry.store.migrations
from services.registry.handlers import checkpoint_saved, model_declared
from services.registry.store.database import Database, UnstorableValue
from services.registry.store.schema import SchemaTooNew, migrate
from services.registry.store.tables import (
    AdapterRemovalDoneRow,
    AdapterRemovalRow,
    AuditRow,
    FeedbackUserRow,
    OutcomeRow,
    TableBase,
    VersionRow,
)
from tests.support.registry_events import CONTEXT, MODEL, NOW, DatabaseFixture, checkpoint

MIGRATIONS = str(Path(services.registry.store.migrations.__file__).parent)
HISTORY = list(ScriptDirectory(MIGRATIONS, recursive_version_locations=True).walk_revisions())
STEPS = [step.revision for step in reversed(HISTORY)]

Rows = dict[str, list[Mapping[str, Any]]]


@pytest.fixture
def engine(database_url: str, tmp_path: Path) -> Engine:
    """An empty database without tables."""
    Database(database_url).close()  # creates the folder of the file
    return create_engine(database_url)


def fill(engine: Engine) -> Rows:
    """Insert a row with a value in every column of every table; return all rows."""
    form = inspect(engine)
    for table in sorted(set(form.get_table_names()) - {"alembic_version"}):
        values = {
            column["name"]: _value(column["name"], str(column["type"]))
            for column in form.get_columns(table)
        }
        names = ", ".join(f'"{name}"' for name in values)
        with engine.begin() as connection:
            connection.execute(
                text(
                    f'INSERT INTO "{table}" ({names}) VALUES '
                    f"({', '.join(f':{name}' for name in values)})"
                ),
                values,
            )
    return contents(engine)


def _value(name: str, kind: str) -> Any:
    if kind in ("JSON", "BYTEA", "BLOB"):
        return b"{}" if kind != "JSON" else '{"a": [1]}'
    if kind in ("INTEGER", "BIGINT"):
        return 7
    if kind == "BOOLEAN":
        return True
    if kind.startswith("DOUBLE") or kind == "FLOAT":
        return 0.25
    return "2026-07-01 12:00:00" if kind in ("DATETIME", "TIMESTAMP") else f"a {name}"


def contents(engine: Engine) -> Rows:
    with engine.connect() as connection:
        return {
            table: [
                dict(row) for row in connection.execute(text(f'SELECT * FROM "{table}"')).mappings()
            ]
            for table in inspect(engine).get_table_names()
            if table != "alembic_version"
        }


def kept_rows(after: Rows, before: Rows) -> Rows:
    """Return the rows of the tables in `before`, without the columns that a migration added, which
    must be empty.
    """
    kept: Rows = {}
    for table, rows in before.items():
        columns = rows[0].keys()
        assert all(row[name] is None for row in after[table] for name in row.keys() - columns)
        kept[table] = [{name: row[name] for name in columns} for row in after[table]]
    return kept


def columns_and_indexes(engine: Engine) -> dict[str, Any]:
    form = inspect(engine)
    return {
        table: (
            {
                column["name"]: (str(column["type"]), column["nullable"])
                for column in form.get_columns(table)
            },
            {index["name"]: index["unique"] for index in form.get_indexes(table)},
        )
        for table in form.get_table_names()
    }


def test_migrations_are_linear_and_numbered() -> None:
    assert [f"{number:04}" for number in range(1, len(STEPS) + 1)] == STEPS
    assert len(STEPS) >= 3
    assert [step.down_revision for step in reversed(HISTORY)] == [None, *STEPS[:-1]]


def test_tables_match_migrations(engine: Engine) -> None:
    migrate(engine)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), TableBase.metadata) == []
    engine.dispose()


@pytest.mark.parametrize("step", range(1, len(STEPS)))
def test_each_migration_keeps_all_rows(engine: Engine, step: int) -> None:
    migrate(engine, STEPS[step - 1])
    before = fill(engine)
    assert len(before) >= 11
    assert all(len(rows) == 1 for rows in before.values())
    migrate(engine, STEPS[step])
    assert kept_rows(contents(engine), before) == before
    engine.dispose()


def test_database_older_than_migrations_is_adopted(
    engine: Engine, new_database: Callable[[], str]
) -> None:
    """Such a database is at migration 1 without recording it; an older one also lacks the tables of
    withdrawals.
    """
    migrate(engine, STEPS[0])
    before = fill(engine)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE alembic_version"))
        connection.execute(text("DROP TABLE withdrawals"))
    migrate(engine)
    assert kept_rows(contents(engine), before) == before | {"withdrawals": []}
    url = new_database()
    Database(url).close()
    fresh = create_engine(url)
    migrate(fresh)
    assert columns_and_indexes(engine) == columns_and_indexes(fresh)
    fresh.dispose()
    engine.dispose()


def test_users_of_earlier_releases_are_taken_over(engine: Engine) -> None:
    """They are known since the first version that they rated."""
    migrate(engine, "0015")
    fill(engine)
    created = ["2026-07-01 12:00:00", "2026-07-02 12:00:00"]
    with engine.begin() as connection:
        for number, at in enumerate(created):
            connection.execute(
                text(
                    "INSERT INTO versions (model, name, number, created_at, model_digest, probes) "
                    f"VALUES ('m', 'v{number}', {number}, '{at}', 'd', '[]')"
                )
            )
            connection.execute(
                text(
                    "INSERT INTO live_rewards (id, model, version, feedback_id, who, known, reward,"
                    f" move) VALUES ({100 + number}, 'm', 'v{number}', 'f{number}', 'ann', TRUE, 1,"
                    " 1)"
                )
            )
    migrate(engine)
    with Session(engine) as session:
        (row,) = session.scalars(select(FeedbackUserRow))
        assert (row.model, row.who) == ("m", "ann")
        assert [row.first_seen, row.last_seen] == [
            datetime.fromisoformat(f"{at}+00:00") for at in created
        ]
    engine.dispose()


def test_newer_schema_is_refused_and_unchanged(engine: Engine, database_url: str) -> None:
    migrate(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database = Database(database_url)
    with pytest.raises(SchemaTooNew, match=rf"RATCHET_DATABASE.*9999.*{STEPS[-1]}.*newer release"):
        database.migrate()
    database.close()
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "9999"
    engine.dispose()


def test_replicas_migrate_concurrently(database_url: str) -> None:
    """All replicas migrate and declare the same model, which gets one version 0."""
    databases = [Database(database_url) for _ in range(4)]

    def start(database: Database) -> int:
        database.migrate()
        return len(database.run_sync(lambda session: model_declared(session, MODEL, NOW)))

    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(start, databases)) == [0, 0, 0, 2]
    for database in databases:
        database.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE versions SET adapter_digest = 'another'",
        "UPDATE versions SET probes = '[]'",
        "DELETE FROM versions",
        "UPDATE audit SET reason = 'it was not me'",
        "DELETE FROM audit",
        "UPDATE removals SET reason = 'it was not me'",
        "DELETE FROM removals",
        "UPDATE removals_done SET objects = 0",
        "DELETE FROM removals_done",
        "UPDATE runs SET batch_id = 'batch of r1'",
        "UPDATE outcomes SET run_id = 'r1', answer = 'rejected'",
        "INSERT INTO outcomes (run_id, evaluation, event_id, answer) VALUES ('r1', 2, 'x', "
        "'rejected')",
    ],
)
def test_database_refuses_forbidden_changes(registry_db: DatabaseFixture, statement: str) -> None:
    base = registry_db.champion
    for run in ("r1", "r2"):
        registry_db.run(partial(checkpoint_saved, event=checkpoint(run, base), context=CONTEXT))
    registry_db.run(
        lambda session: session.add(
            AdapterRemovalRow(run_id="r3", model="support", uri="adapters/r3", reason="old", at=NOW)
        )
    )
    registry_db.run(
        lambda session: session.add(AdapterRemovalDoneRow(run_id="r3", objects=1, at=NOW))
    )
    with pytest.raises(IntegrityError):
        registry_db.run(lambda session: session.execute(text(statement)))


def test_all_version_columns_except_merged_are_guarded(
    registry_db: DatabaseFixture,
) -> None:
    for column in [column.name for column in VersionRow.__table__.columns]:

        def change(session: Any, column: str = column) -> None:
            session.execute(text(f"UPDATE versions SET {column} = {column}"))

        if column.startswith("merged_"):
            registry_db.run(change)
        else:
            with pytest.raises(IntegrityError, match="never changes"):
                registry_db.run(change)


def test_concurrent_decisions_are_serialised(
    registry_db: DatabaseFixture, database_url: str
) -> None:
    """Two replicas handle eight outcomes against the same champion at once: one is promoted, the
    others are re-evaluated.
    """
    base = registry_db.champion
    second_database = Database(database_url)

    def decide(number: int) -> str:
        work = (registry_db.database, second_database)[number % 2].run_sync
        return str(
            work(
                lambda session: checkpoint_saved(session, checkpoint(f"r{number}", base), CONTEXT)
            )[0].model_dump()["answer"]
        )

    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(decide, range(8))) == ["promoted"] + ["reevaluate"] * 7
    second_database.close()
    versions = registry_db.run(
        lambda session: sorted(row.number for row in session.query(VersionRow))
    )
    assert versions == list(range(9))
    moves = registry_db.run(lambda session: [row.action for row in session.query(AuditRow)])
    assert (moves.count("promote"), moves.count("challenge")) == (1, 8)


def test_unstorable_value_is_a_dead_letter(registry_db: DatabaseFixture, database_url: str) -> None:
    if database_url.startswith("sqlite"):
        pytest.skip("SQLite takes it")
    with pytest.raises(UnstorableValue, match="NUL"):
        registry_db.run(
            lambda session: session.add(
                OutcomeRow(run_id="a\x00b", evaluation=1, event_id="x", answer="rejected")
            )
        )
