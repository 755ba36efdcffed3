"""Outcome events: one builder for every result of a run."""

from pathlib import Path

import pytest

from services.trainer.bus_view.registry_state import Champion
from services.trainer.machine.bases import LocalBase
from services.trainer.run.outcome import EvaluatedCandidate, FailedRun, RunFacts, outcome_event
from services.trainer.run_folder import RunPlan
from shared.config.model_file import BasePaths, ModelFile
from shared.config.training import TrainingConfig
from shared.events import (
    Artefact,
    CheckpointSaved,
    Decision,
    Position,
    RunMetrics,
    TrainingRolledBack,
)
from shared.events.hyperparameters import Lineage
from shared.identity import identity
from shared.storage.object_store import MemoryStore
from tests.support.tickets import DIGEST, NOW, write_batch
from tests.trainer.histories import verdict

PARENT = Artefact(uri="adapters/m/parent/manifest.json", digest=DIGEST)
ADAPTER = Artefact(uri="adapters/m/r/manifest.json", digest=DIGEST)
POSITION = Position(topic="dataset.withdrawals", partition=0, offset=7)
PLAN = RunPlan(parent_version="v1", parent=PARENT, quarantined=(), withdrawn_through=POSITION)
METRICS = RunMetrics(
    training_loss=1,
    steps=1,
    epochs=1,
    examples_new=1,
    examples_replayed=0,
    tokens=1,
    train_seconds=1,
    evaluate_seconds=1,
)


def facts(lineage: Lineage = "continue") -> RunFacts:
    model = ModelFile(model="m", base=BasePaths(training="base", serving="base.gguf"))
    batch = write_batch(MemoryStore(), "m", 0, [], [])
    base = LocalBase(Path("base"), "base", DIGEST)
    return RunFacts("r", batch, model, TrainingConfig(lineage=lineage), base)


def candidate(decision: Decision) -> EvaluatedCandidate:
    return EvaluatedCandidate(PLAN, ADAPTER, METRICS, verdict(decision), ())


def test_promoted_candidate_is_a_checkpoint() -> None:
    event = outcome_event(facts(), 2, candidate("promote"), NOW)
    assert isinstance(event, CheckpointSaved)
    assert event.event_id == identity("CheckpointSaved", "r", 2)
    assert (event.evaluation, event.occurred_at) == (2, NOW)
    assert (event.parent_version, event.parent_adapter) == ("v1", PARENT)
    assert (event.adapter, event.withdrawn_through) == (ADAPTER, POSITION)


@pytest.mark.parametrize(
    ("decision", "outcome"), [("reject", "rejected"), ("inconclusive", "inconclusive")]
)
def test_blocked_candidate_is_a_rollback(decision: Decision, outcome: str) -> None:
    event = outcome_event(facts(), 1, candidate(decision), NOW)
    assert isinstance(event, TrainingRolledBack)
    assert event.event_id == identity("TrainingRolledBack", "r", 1)
    assert (event.outcome, event.reason) == (outcome, "because")
    assert (event.adapter, event.metrics, event.verdict) == (ADAPTER, METRICS, verdict(decision))
    assert event.advice


@pytest.mark.parametrize(("lineage", "parent"), [("continue", PARENT), ("fresh", None)])
def test_failed_run_is_a_rollback_without_result(lineage: Lineage, parent: Artefact | None) -> None:
    failure = FailedRun(Champion("v3", PARENT), "broken", "fix it")
    event = outcome_event(facts(lineage), 1, failure, NOW)
    assert isinstance(event, TrainingRolledBack)
    assert (event.outcome, event.reason, event.advice) == ("failed", "broken", "fix it")
    assert (event.parent_version, event.parent_adapter) == ("v3", parent)
    assert (event.adapter, event.metrics, event.verdict) == (None, None, None)
