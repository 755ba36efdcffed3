"""Event handlers: each outcome becomes one version, stale verdicts are reevaluated."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from services.registry.handlers import (
    checkpoint_saved,
    model_declared,
    training_progressed,
    training_rolled_back,
)
from services.registry.store.database import Session
from services.registry.store.outbox import OutboxPublisher, enqueue
from services.registry.store.queries import points_of, versions_of
from services.registry.store.tables import AuditRow, OutboxRow, RunRow
from services.registry.versions.moves import roll_back
from shared.clock import ManualClock, SystemClock
from shared.errors import ContractViolation
from shared.events import VersionPromoted, VersionRegistered, VersionRolledBack
from shared.logs import configure
from shared.messaging.bus import MemoryBus
from shared.messaging.codec import decode
from shared.messaging.topics import MODELS_VERSIONS
from tests.support.registry_events import (
    CONTEXT,
    MODEL,
    NOW,
    DatabaseFixture,
    checkpoint,
    progress,
    rejection,
)


def test_declared_model_starts_with_its_base(registry_db: DatabaseFixture) -> None:
    assert registry_db.champion == "v0_20260701_120000"
    assert registry_db.run(lambda session: model_declared(session, MODEL, NOW)) == []


def test_verdict_against_the_champion_promotes(registry_db: DatabaseFixture) -> None:
    base = registry_db.champion
    registered, promoted = registry_db.run(
        lambda session: checkpoint_saved(session, checkpoint("r1", base), CONTEXT)
    )
    assert isinstance(registered, VersionRegistered)
    assert isinstance(promoted, VersionPromoted)
    assert registered.answer == "promoted"
    assert (promoted.version, promoted.previous) == (registry_db.champion, base)
    assert registry_db.champion == "v1_20260701_120000"
    assert (registry_db.aliases.previous, registry_db.aliases.challenger) == (base, None)


def test_duplicate_outcome_creates_one_version(registry_db: DatabaseFixture) -> None:
    event = checkpoint("r1", registry_db.champion)
    registry_db.run(lambda session: checkpoint_saved(session, event, CONTEXT))
    assert registry_db.run(lambda session: checkpoint_saved(session, event, CONTEXT)) == []
    assert registry_db.run(lambda session: len(versions_of(session, "support"))) == 2


def test_stale_verdict_is_reevaluated_then_promotes_the_version(
    registry_db: DatabaseFixture,
) -> None:
    base = registry_db.champion
    registry_db.run(lambda session: checkpoint_saved(session, checkpoint("r1", base), CONTEXT))
    first = registry_db.champion
    (answer,) = registry_db.run(
        lambda session: checkpoint_saved(session, checkpoint("r2", base), CONTEXT)
    )
    assert isinstance(answer, VersionRegistered)
    assert (answer.answer, answer.champion, answer.evaluation) == ("reevaluate", first, 1)
    assert (registry_db.champion, registry_db.aliases.challenger) == (first, answer.version)
    again, promoted = registry_db.run(
        lambda session: checkpoint_saved(session, checkpoint("r2", first, evaluation=2), CONTEXT)
    )
    assert isinstance(again, VersionRegistered)
    assert isinstance(promoted, VersionPromoted)
    assert (again.version, again.answer) == (answer.version, "promoted")
    assert again.event_id != answer.event_id
    assert (registry_db.champion, registry_db.aliases.previous) == (answer.version, first)


def test_candidate_rejected_at_reevaluation_is_withdrawn(registry_db: DatabaseFixture) -> None:
    base = registry_db.champion
    registry_db.run(lambda session: checkpoint_saved(session, checkpoint("r1", base), CONTEXT))
    registry_db.run(lambda session: checkpoint_saved(session, checkpoint("r2", base), CONTEXT))
    registry_db.run(
        lambda session: training_rolled_back(
            session, rejection("r2", registry_db.champion, evaluation=2), CONTEXT
        )
    )
    run = registry_db.run(lambda session: session.get(RunRow, "r2"))
    assert run is not None
    assert (run.state, run.reason, run.advice) == ("rejected", "worse", "look at the batch")
    assert registry_db.aliases.challenger is None


def test_outcome_after_the_end_of_the_run_is_ignored(registry_db: DatabaseFixture) -> None:
    base = registry_db.champion
    registry_db.run(lambda session: training_rolled_back(session, rejection("r1", base), CONTEXT))
    assert (
        registry_db.run(
            lambda session: checkpoint_saved(session, checkpoint("r1", base, evaluation=2), CONTEXT)
        )
        == []
    )
    assert registry_db.champion == base


def test_second_adapter_for_a_run_is_a_contract_violation(registry_db: DatabaseFixture) -> None:
    base = registry_db.champion
    registry_db.run(lambda session: checkpoint_saved(session, checkpoint("r1", base), CONTEXT))
    registry_db.run(lambda session: checkpoint_saved(session, checkpoint("r2", base), CONTEXT))
    reevaluated = checkpoint("r2", registry_db.champion, evaluation=2).model_copy(
        update={"adapter": checkpoint("x", base).adapter}
    )
    with pytest.raises(ContractViolation, match=r"adapter\.digest"):
        registry_db.run(lambda session: checkpoint_saved(session, reevaluated, CONTEXT))


def test_an_adapter_outside_the_store_is_a_violation(registry_db: DatabaseFixture) -> None:
    saved = checkpoint("r1", registry_db.champion)
    elsewhere = saved.adapter.model_copy(update={"uri": "../../etc/passwd"})
    event = saved.model_copy(update={"adapter": elsewhere})
    with pytest.raises(ContractViolation, match=r"adapter\.uri"):
        registry_db.run(lambda session: checkpoint_saved(session, event, CONTEXT))
    assert registry_db.champion == saved.verdict.baseline_version


def test_loss_curve_is_independent_of_event_order(registry_db: DatabaseFixture) -> None:
    for step in (2, 1, 2):
        registry_db.run(
            partial(training_progressed, event=progress("r1", step, loss=1 / step), context=CONTEXT)
        )
    points = registry_db.run(lambda session: points_of(session, "r1"))
    assert [(point.step, point.loss) for point in points] == [(1, 1.0), (2, 0.5)]


def test_only_training_progress_counts_steps(registry_db: DatabaseFixture) -> None:
    """Other phases count examples; a run stays at step 2 of 4 while it is evaluated."""
    training = progress("r1", 2, loss=0.5)
    registry_db.run(partial(training_progressed, event=training, context=CONTEXT))
    registry_db.run(
        partial(
            training_progressed,
            event=training.model_copy(update={"phase": "evaluating", "step": 70, "total_steps": 0}),
            context=CONTEXT,
        )
    )
    run = registry_db.run(lambda session: session.get(RunRow, "r1"))
    assert run is not None
    assert (run.state, run.step, run.total_steps) == ("evaluating", 2, training.total_steps)


def test_late_progress_does_not_reopen_a_run(registry_db: DatabaseFixture) -> None:
    registry_db.run(
        lambda session: training_rolled_back(
            session, rejection("r1", registry_db.aliases.champion or ""), CONTEXT
        )
    )
    registry_db.run(
        lambda session: training_progressed(session, progress("r1", 3, loss=0.4), CONTEXT)
    )
    run = registry_db.run(lambda session: session.get(RunRow, "r1"))
    assert run is not None
    assert run.state == "rejected"


def test_failed_transaction_leaves_no_trace(registry_db: DatabaseFixture) -> None:
    before = registry_db.run(
        lambda session: session.scalar(select(func.count()).select_from(OutboxRow))
    )

    base = registry_db.champion

    def fail_at_the_end(session: Session) -> None:
        enqueue(session, checkpoint_saved(session, checkpoint("r1", base), CONTEXT), NOW)
        raise RuntimeError("the power goes")

    with pytest.raises(RuntimeError):
        registry_db.run(fail_at_the_end)
    assert registry_db.champion == base
    assert (
        registry_db.run(lambda session: session.scalar(select(func.count()).select_from(OutboxRow)))
        == before
    )


async def test_commit_wakes_outbox_publisher(registry_db: DatabaseFixture) -> None:
    bus = MemoryBus()
    log = configure("test", "error", "text")
    publisher = OutboxPublisher(registry_db.database, bus, SystemClock(), log, idle_seconds=3600)
    publishing = asyncio.create_task(publisher.run())
    try:
        async with asyncio.timeout(20):
            while len(bus.topics.get(MODELS_VERSIONS, [])) < 2:  # those of version 0
                await asyncio.sleep(0.01)
            # The publisher waits for a commit now, or is about to.
            base = registry_db.champion
            await asyncio.to_thread(
                registry_db.decide,
                lambda session: checkpoint_saved(session, checkpoint("r1", base), CONTEXT),
            )
            while len(bus.topics[MODELS_VERSIONS]) < 4:
                await asyncio.sleep(0.01)
    finally:
        publishing.cancel()
        await asyncio.wait([publishing])
    assert publishing.cancelled()


def test_rolled_back_transaction_is_no_commit(registry_db: DatabaseFixture) -> None:
    commits: list[dict[Any, Any]] = []
    registry_db.database.on_commit(commits.append)

    def fail(session: Session) -> None:
        raise ValueError("a fault of the transaction")

    with pytest.raises(ValueError, match="a fault of the transaction"):
        registry_db.run(fail)
    assert commits == []
    registry_db.database.run_sync(lambda session: None, {"key": "value"})
    assert commits == [{"key": "value"}]


async def test_outbox_publishes_in_order_and_once(registry_db: DatabaseFixture) -> None:
    base = registry_db.champion
    registry_db.decide(lambda session: checkpoint_saved(session, checkpoint("r1", base), CONTEXT))
    registry_db.decide(
        lambda session: [roll_back(session, "support", None, "try", "operator", NOW)[0]]
    )
    bus = MemoryBus()
    publisher = OutboxPublisher(
        registry_db.database, bus, ManualClock(NOW), configure("test", "error", "text")
    )
    await publisher.publish()
    await publisher.publish()
    records = bus.topics[MODELS_VERSIONS]
    events = [
        decode(
            record.value, record.headers, VersionRegistered, VersionPromoted, VersionRolledBack
        ).event
        for record in records
    ]
    assert [type(event).__name__ for event in events] == [
        "VersionRegistered",
        "VersionPromoted",
        "VersionRegistered",
        "VersionPromoted",
        "VersionRolledBack",
    ]
    assert {record.key for record in records} == {b"support"}
    assert len({event.event_id for event in events}) == 5


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["r1", "r2", "r3", "back"]), st.booleans()), max_size=12
    )
)
def test_only_current_verdicts_and_operators_move_the_champion(
    steps: list[tuple[str, bool]], new_database: Callable[[], str]
) -> None:
    registry_db = DatabaseFixture(new_database())
    evaluations: dict[str, int] = {}
    base = registry_db.champion
    for run, fresh in steps:
        before = registry_db.champion
        if run == "back":
            if registry_db.aliases.previous:
                registry_db.run(
                    lambda session: roll_back(session, "support", None, "x", "operator", NOW)
                )
                assert registry_db.aliases.previous == before
            continue
        evaluations[run] = evaluations.get(run, 0) + 1
        baseline = before if fresh else "v99_20200101_000000"
        event = checkpoint(run, baseline, evaluations[run])
        decided = registry_db.run(partial(checkpoint_saved, event=event, context=CONTEXT))
        promoted = [event for event in decided if isinstance(event, VersionPromoted)]
        assert bool(promoted) == (registry_db.champion != before)
        assert not promoted or fresh
    audit = registry_db.run(
        lambda session: session.scalars(select(AuditRow).order_by(AuditRow.id)).all()
    )
    assert audit[0].to_version == base
    assert len(registry_db.run(lambda session: versions_of(session, "support"))) == 1 + len(
        evaluations
    )
    registry_db.close()
