"""Operators' control of training: decisions are numbered and announced once, also when several
operators decide at once; which batches wait.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from services.registry.handlers import HandlerContext, batch_ready, training_progressed
from services.registry.store.audit_queries import OPERATOR
from services.registry.store.training_queries import pause_of, waiting_batches
from services.registry.training_controls import pause_training, resume_training
from services.registry.versions.moves import UnknownVersion
from shared.events import TrainingPaused
from tests.support.registry_events import NOW, DatabaseFixture, announcement, progress

CONTEXT = HandlerContext(NOW, 0, None)


def decide(database: DatabaseFixture, change: Callable[..., Any], operator: str = "ada") -> Any:
    work = partial(change, model="support", reason="labels", now=NOW)
    return database.database.run_sync(work, {OPERATOR: operator})


def test_pauses_are_numbered_and_name_the_operator(registry_db: DatabaseFixture) -> None:
    assert decide(registry_db, resume_training) is None, "not paused"
    first = decide(registry_db, pause_training)
    assert (first.number, first.actor, first.reason) == (1, "ada", "labels")
    assert decide(registry_db, pause_training, "bob") is None
    row = registry_db.run(lambda session: pause_of(session, "support"))
    assert row is not None
    assert (row.since, row.operator) == (NOW, "ada")
    resumed = decide(registry_db, resume_training, "bob")
    assert (resumed.number, resumed.actor) == (2, "bob")
    assert registry_db.run(lambda session: pause_of(session, "support")) is None
    again = decide(registry_db, pause_training)
    assert isinstance(again, TrainingPaused)
    assert again.number == 3
    assert again.event_id != first.event_id


def test_a_model_without_a_version_is_refused(registry_db: DatabaseFixture) -> None:
    with pytest.raises(UnknownVersion, match="no version yet"):
        registry_db.run(lambda session: pause_training(session, "other", "labels", NOW))


def test_batches_wait_until_a_run_of_their_lane_starts(registry_db: DatabaseFixture) -> None:
    """A batch without a run that is older than a started one of its lane is in the dead letters."""
    for event in (announcement(0, "master"), *map(announcement, range(1, 4))):
        registry_db.run(partial(batch_ready, event=event, context=CONTEXT))
    assert waiting_numbers(registry_db) == [0, 1, 2, 3]
    started = progress("r2", 0).model_copy(update={"batch_id": announcement(2).batch_id})
    registry_db.run(lambda session: training_progressed(session, started, CONTEXT))
    assert waiting_numbers(registry_db) == [0, 3]


def waiting_numbers(database: DatabaseFixture) -> list[int]:
    return database.run(lambda session: [row.number for row in waiting_batches(session, "support")])
