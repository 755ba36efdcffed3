"""Operators' control of runs: decisions are numbered, audited and announced; what they do to the
state of a run, and to an outcome that comes after a cancellation.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from services.registry.handlers import (
    HandlerContext,
    batch_ready,
    checkpoint_saved,
    training_progressed,
    training_rolled_back,
)
from services.registry.store.audit_queries import OPERATOR
from services.registry.store.queries import history_of
from services.registry.store.tables import RunRow
from services.registry.store.training_queries import waiting_batches
from services.registry.training_controls import (
    RunControlRefused,
    UnknownRun,
    cancel_run,
    resume_run,
)
from shared.config.canary import CanarySettings
from shared.events import RunCancelled, VersionPromoted, VersionRegistered
from shared.identity import run_identity
from tests.support.registry_events import (
    NOW,
    DatabaseFixture,
    announcement,
    checkpoint,
    progress,
    rejection,
)

CONTEXT = HandlerContext(NOW, 0, None)


def decide(
    database: DatabaseFixture,
    change: Callable[..., Any],
    run_id: str = "r1",
    after: timedelta = timedelta(),
) -> Any:
    return database.database.run_sync(
        lambda session: change(session, run_id, "wrong labels", NOW + after), {OPERATOR: "ada"}
    )


def report_progress(database: DatabaseFixture, run_id: str = "r1") -> None:
    database.run(lambda session: training_progressed(session, progress(run_id, 2, 0.5), CONTEXT))


def announce(database: DatabaseFixture, number: int) -> str:
    """Announce a batch; return the id of its run."""
    event = announcement(number)
    database.run(lambda session: batch_ready(session, event, CONTEXT))
    return run_identity(event.batch_id)


def run_row(database: DatabaseFixture, run_id: str = "r1") -> RunRow:
    def read(session: Any) -> RunRow:
        row = session.get(RunRow, run_id)
        assert isinstance(row, RunRow)
        session.expunge(row)
        return row

    return database.run(read)


def waiting_numbers(database: DatabaseFixture) -> list[int]:
    return database.run(lambda session: [row.number for row in waiting_batches(session, "support")])


def test_decisions_are_numbered_and_audited(registry_db: DatabaseFixture) -> None:
    report_progress(registry_db)
    assert decide(registry_db, resume_run) is None, "not cancelled"
    first = decide(registry_db, cancel_run)
    assert isinstance(first, RunCancelled)
    assert (first.number, first.actor, first.reason) == (1, "ada", "wrong labels")
    assert (first.run_id, first.batch_id) == ("r1", "batch of r1")
    assert decide(registry_db, cancel_run) is None
    cancelled = run_row(registry_db)
    assert (cancelled.state, cancelled.reason) == ("cancelled", "cancelled by ada: wrong labels")
    assert cancelled.ended_at == NOW
    report_progress(registry_db)
    assert run_row(registry_db).state == "cancelled", "its last progress came late"
    assert decide(registry_db, resume_run).number == 2
    resumed = run_row(registry_db)
    assert (resumed.state, resumed.reason, resumed.ended_at) == ("waiting", "", None)
    report_progress(registry_db)
    assert run_row(registry_db).state == "training"
    again = decide(registry_db, cancel_run)
    assert again.number == 3
    assert again.event_id != first.event_id
    history = registry_db.run(lambda session: history_of(session, "support", 9))
    assert [(row.action, row.operator, row.evidence.get("run_id")) for row in history][:3] == [
        ("cancel_run", "ada", "r1"),
        ("resume_run", "ada", "r1"),
        ("cancel_run", "ada", "r1"),
    ]


def test_a_run_that_has_not_started_is_cancelled(registry_db: DatabaseFixture) -> None:
    """The batches before and behind it still wait."""
    runs = [announce(registry_db, number) for number in (1, 2, 3)]
    assert decide(registry_db, cancel_run, runs[1]).batch_id == "batch 2"
    assert waiting_numbers(registry_db) == [1, 3]
    assert run_row(registry_db, runs[1]).lane == "adaptive"
    assert decide(registry_db, resume_run, runs[1]).number == 2
    assert run_row(registry_db, runs[1]).state == "waiting"
    with pytest.raises(UnknownRun, match="has started or was cancelled"):
        decide(registry_db, resume_run, runs[2])
    assert waiting_numbers(registry_db) == [3]


@pytest.mark.parametrize("change", [cancel_run, resume_run])
def test_a_run_with_an_outcome_is_refused(
    registry_db: DatabaseFixture, change: Callable[..., Any]
) -> None:
    rejected = rejection("r1", registry_db.champion)
    registry_db.run(lambda session: training_rolled_back(session, rejected, CONTEXT))
    with pytest.raises(RunControlRefused, match=r"run r1 has ended \(rejected\)"):
        decide(registry_db, change)
    with pytest.raises(UnknownRun, match="r9"):
        decide(registry_db, change, "r9")


def test_a_candidate_to_be_evaluated_again_is_refused(registry_db: DatabaseFixture) -> None:
    saved = checkpoint("r1", "v_other")
    registry_db.run(lambda session: checkpoint_saved(session, saved, CONTEXT))
    assert run_row(registry_db).state == "reevaluate"
    with pytest.raises(RunControlRefused, match="ratchet hold support"):
        decide(registry_db, cancel_run)


def test_a_batch_that_the_log_forgot_is_not_resumed(registry_db: DatabaseFixture) -> None:
    run = announce(registry_db, 1)
    decide(registry_db, cancel_run, run)
    with pytest.raises(RunControlRefused, match="365 days"):
        decide(registry_db, resume_run, run, timedelta(days=366))
    assert run_row(registry_db, run).state == "cancelled"


@pytest.mark.parametrize("baseline", ["champion", "v_other"])
@pytest.mark.parametrize("canary", [None, CanarySettings()])
def test_late_candidate_of_a_cancelled_run_waits(
    registry_db: DatabaseFixture, baseline: str, canary: CanarySettings | None
) -> None:
    """The trainer published it before it read the cancellation: no move, no trial, and no further
    evaluation, for which the trainer would have to take the run up again.
    """
    report_progress(registry_db)
    decide(registry_db, cancel_run)
    champion = registry_db.champion
    saved = checkpoint("r1", champion if baseline == "champion" else baseline)
    context = HandlerContext(NOW, 0, canary)
    [registered] = registry_db.run(lambda session: checkpoint_saved(session, saved, context))
    assert isinstance(registered, VersionRegistered)
    assert registered.answer == "held"
    assert not isinstance(registered, VersionPromoted)
    assert registry_db.champion == champion
    run = run_row(registry_db)
    assert run.state == "held"
    assert "cancelled" in run.reason
    with pytest.raises(RunControlRefused):
        decide(registry_db, resume_run)


def test_late_rejection_of_a_cancelled_run_counts(registry_db: DatabaseFixture) -> None:
    report_progress(registry_db)
    decide(registry_db, cancel_run)
    rejected = rejection("r1", registry_db.champion)
    registry_db.run(lambda session: training_rolled_back(session, rejected, CONTEXT))
    assert run_row(registry_db).state == "rejected"
