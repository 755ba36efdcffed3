"""The audit log: every decision in one unbroken hash chain, whichever replica writes it."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import create_engine, select, text
from sqlalchemy.exc import IntegrityError

from services.registry.handlers import checkpoint_saved, training_rolled_back
from services.registry.rollout.holds import hold, release
from services.registry.store.audit_chain import (
    chain_entries,
    count_unchained,
    fields_of,
    newest_entries,
)
from services.registry.store.audit_queries import OPERATOR, add_audit_entry
from services.registry.store.database import Database, Session
from services.registry.store.queries import history_of
from services.registry.store.schema import migrate
from services.registry.store.tables import AuditHeadRow, AuditRow
from services.registry.versions.moves import promote_by_operator, roll_back
from shared.audit_chain import ChainVerifier
from tests.support.registry_events import CONTEXT, NOW, DatabaseFixture, checkpoint, rejection


def chain_of(database: Database) -> Sequence[AuditRow]:
    """Return all entries, verified up to the stored head."""
    rows = database.run_sync(lambda session: chain_entries(session, 0, 10_000))
    verifier = ChainVerifier()
    for row in rows:
        verifier.add(fields_of(row) | {"hash": row.hash})
    head = database.run_sync(lambda session: session.scalar(select(AuditHeadRow)))
    if rows:
        assert head is not None
        assert (head.number, head.hash) == (verifier.number, verifier.head)
    return rows


def entry(session: Session, model: str, number: int) -> None:
    add_audit_entry(session, model, "tests", "hold", f"reason {number}", NOW, {"number": number})


def test_every_decision_is_in_the_chain_with_its_author(registry_db: DatabaseFixture) -> None:
    base = registry_db.champion
    run = registry_db.run
    run(partial(checkpoint_saved, event=checkpoint("r1", base), context=CONTEXT))
    run(partial(training_rolled_back, event=rejection("r2", registry_db.champion), context=CONTEXT))
    registry_db.database.run_sync(
        partial(hold, model="support", actor="operator", reason="look", now=NOW), {OPERATOR: "ada"}
    )
    run(partial(checkpoint_saved, event=checkpoint("r3", registry_db.champion), context=CONTEXT))
    run(partial(release, model="support", actor="operator", reason="done", now=NOW))
    run(partial(promote_by_operator, model="support", name=None, reason="good", now=NOW))
    run(partial(roll_back, model="support", to=base, reason="worse", actor="monitor", now=NOW))
    rows = chain_of(registry_db.database)
    assert [(row.action, row.actor, row.operator) for row in rows] == [
        ("found", "registry", None),
        ("challenge", "registry", None),
        ("promote", "registry", None),
        ("rejected", "registry", None),
        ("hold", "operator", "ada"),
        ("challenge", "registry", None),
        ("release", "operator", None),
        ("promote", "operator", None),
        ("roll_back", "monitor", None),
    ]
    assert rows[3].evidence["run_id"] == "r2"
    assert rows[3].reason == "worse"
    history = registry_db.run(lambda session: history_of(session, "support", 50))
    assert "rejected" not in {row.action for row in history}
    assert len(history) == 8


def test_rejected_challenger_is_recorded_once(registry_db: DatabaseFixture) -> None:
    """A challenger whose re-evaluation fails is withdrawn; that entry has the verdict."""
    event = checkpoint("r1", "v9_20260101_000000")
    registry_db.run(partial(checkpoint_saved, event=event, context=CONTEXT))
    again = rejection("r1", registry_db.champion, evaluation=2)
    registry_db.run(partial(training_rolled_back, event=again, context=CONTEXT))
    registry_db.run(partial(training_rolled_back, event=again, context=CONTEXT))
    rows = chain_of(registry_db.database)
    assert [row.action for row in rows] == ["found", "challenge", "withdraw"]


def test_concurrent_replicas_write_one_linear_chain(
    registry_db: DatabaseFixture, database_url: str
) -> None:
    """Two replicas write entries of different models, which no other lock serialises."""
    replicas = [registry_db.database, Database(database_url)]

    def write(number: int) -> None:
        work = partial(entry, model=f"m{number % 4}", number=number)
        replicas[number % 2].run_sync(work)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, range(40)))
    rows = chain_of(registry_db.database)
    replicas[1].close()
    assert sorted(row.evidence["number"] for row in rows if row.actor == "tests") == [*range(40)]
    assert [row.number for row in rows] == [*range(1, 42)]


def test_entry_is_written_with_its_decision_or_not_at_all(registry_db: DatabaseFixture) -> None:
    def fail(session: Session) -> None:
        entry(session, "support", 1)
        raise ZeroDivisionError

    before = len(chain_of(registry_db.database))
    with pytest.raises(ZeroDivisionError):
        registry_db.run(fail)
    registry_db.run(partial(entry, model="support", number=2))
    rows = chain_of(registry_db.database)
    assert len(rows) == before + 1
    assert rows[-1].reason == "reason 2"


def test_database_refuses_a_second_branch(registry_db: DatabaseFixture) -> None:
    (first, *_) = chain_of(registry_db.database)
    assert first.previous_hash is not None

    def branch(session: Session, number: int, previous: str) -> None:
        row = AuditRow(
            model="support", at=NOW, actor="x", action="x", reason="x", evidence={}, hash="0"
        )
        row.number, row.previous_hash = number, previous
        session.add(row)

    with pytest.raises(IntegrityError):
        registry_db.run(partial(branch, number=99, previous=first.previous_hash))
    with pytest.raises(IntegrityError):
        registry_db.run(partial(branch, number=1, previous="another"))


def test_older_entries_stay_outside_the_chain(new_database: Callable[[], str]) -> None:
    """The entry of an earlier release, before the migration or from a replica that still runs."""
    url = new_database()
    database = Database(url)
    engine = create_engine(url)
    insert = text(
        "INSERT INTO audit (model, at, actor, action, reason, evidence) "
        "VALUES ('support', '2026-01-01 00:00:00', 'operator', 'hold', 'old', '{}')"
    )
    migrate(engine, "0010")
    with engine.begin() as connection:
        connection.execute(insert)
    database.migrate()
    assert chain_of(database) == []
    database.run_sync(partial(entry, model="support", number=1))
    with engine.begin() as connection:
        connection.execute(insert)
    database.run_sync(partial(entry, model="support", number=2))
    assert [row.number for row in chain_of(database)] == [1, 2]
    assert database.run_sync(count_unchained) == 2
    assert len(database.run_sync(lambda session: history_of(session, "support", 9))) == 4
    database.close()
    engine.dispose()


def test_entries_are_selected_by_model_and_time(registry_db: DatabaseFixture) -> None:
    for number, model in enumerate(("a", "b", "a")):
        registry_db.run(
            partial(
                add_audit_entry,
                model=model,
                actor="tests",
                action="hold",
                reason=f"{number}",
                now=NOW + timedelta(hours=number),
            )
        )

    def reasons(rows: Sequence[AuditRow]) -> list[str]:
        return [row.reason for row in rows]

    run = registry_db.run
    assert reasons(run(lambda session: chain_entries(session, 0, 9, "a"))) == ["0", "2"]
    later = NOW + timedelta(minutes=1)
    assert reasons(run(lambda session: chain_entries(session, 0, 9, None, later))) == ["1", "2"]
    assert reasons(run(lambda session: newest_entries(session, 1, "a"))) == ["2"]
    assert reasons(run(lambda session: newest_entries(session, 9, "a", 4))) == ["0"]


def test_evidence_without_a_json_form_stays_verifiable(registry_db: DatabaseFixture) -> None:
    registry_db.run(
        partial(
            add_audit_entry,
            model="support",
            actor="tests",
            action="hold",
            reason="\u2028 ü 🙂",
            now=NOW + timedelta(microseconds=7),
            evidence={"wealth": float("inf"), "pair": (1, 1e22, -0.0), "texts": {2: "two"}},
        )
    )
    assert chain_of(registry_db.database)[-1].evidence == {
        "wealth": None,
        "pair": [1, 1e22, -0.0],
        "texts": {"2": "two"},
    }
