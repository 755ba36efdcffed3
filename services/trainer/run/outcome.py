"""Outcome events of a run. Every `CheckpointSaved` and `TrainingRolledBack` is built here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from services.trainer.bus_view.registry_state import Champion
from services.trainer.machine.bases import LocalBase
from services.trainer.run_folder import Outcome, RunPlan
from shared.config.model_file import ModelFile
from shared.config.training import TrainingConfig
from shared.events import (
    Artefact,
    BatchReady,
    CheckpointSaved,
    Probe,
    RunMetrics,
    TrainingRolledBack,
    Verdict,
)
from shared.identity import identity

_QUARANTINED_ADVICE = "the batch is quarantined; inspect its examples"
_FORGOT_ADVICE = (
    "the batch is not quarantined, and later runs replay its examples; if this happens often, add "
    "prompts to the lane's rehearsal, or lower its learning_rate"
)
_INCONCLUSIVE_ADVICE = "no action needed; later runs replay the batch's examples"


@dataclass(frozen=True)
class RunFacts:
    """Facts that every outcome of a run shares."""

    run_id: str
    batch: BatchReady
    model: ModelFile
    configuration: TrainingConfig
    base: LocalBase


@dataclass(frozen=True)
class EvaluatedCandidate:
    """Result of a run that reached the gate. `adapted` is the number of layers by projection."""

    plan: RunPlan
    adapter: Artefact
    metrics: RunMetrics
    verdict: Verdict
    probes: tuple[Probe, ...]
    adapted: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class FailedRun:
    """Result of a run that cannot produce a version; `champion` was to be its baseline."""

    champion: Champion
    reason: str
    advice: str


def outcome_event(
    facts: RunFacts, evaluation: int, result: EvaluatedCandidate | FailedRun, now: datetime
) -> Outcome:
    """Return the event of a run's result: a checkpoint if the gate promotes, else a rollback."""
    if isinstance(result, FailedRun):
        return _rolled_back(facts, evaluation, now, _failure(facts, result))
    if result.verdict.decision == "promote":
        return _checkpoint_saved(facts, evaluation, now, result)
    return _rolled_back(facts, evaluation, now, _blocked(result))


def _checkpoint_saved(
    facts: RunFacts, evaluation: int, now: datetime, result: EvaluatedCandidate
) -> CheckpointSaved:
    return CheckpointSaved(
        event_id=identity("CheckpointSaved", facts.run_id, evaluation),
        **_shared_fields(facts, evaluation, now),
        **_lineage(result.plan),
        adapter=result.adapter,
        metrics=result.metrics,
        verdict=result.verdict,
        probes=result.probes,
        withdrawn_through=result.plan.withdrawn_through,
    )


def _rolled_back(
    facts: RunFacts, evaluation: int, now: datetime, fields: dict[str, Any]
) -> TrainingRolledBack:
    return TrainingRolledBack(
        event_id=identity("TrainingRolledBack", facts.run_id, evaluation),
        **_shared_fields(facts, evaluation, now),
        **fields,
    )


def _blocked(result: EvaluatedCandidate) -> dict[str, Any]:
    rejected = result.verdict.decision == "reject"
    return _lineage(result.plan) | {
        "outcome": "rejected" if rejected else "inconclusive",
        "reason": result.verdict.reasons[0],
        "advice": _advice(result.verdict),
        "adapter": result.adapter,
        "metrics": result.metrics,
        "verdict": result.verdict,
    }


def _advice(verdict: Verdict) -> str:
    if verdict.quarantines_batch:
        return _QUARANTINED_ADVICE
    return _FORGOT_ADVICE if verdict.decision == "reject" else _INCONCLUSIVE_ADVICE


def _failure(facts: RunFacts, result: FailedRun) -> dict[str, Any]:
    lineage = facts.configuration.lineage
    return {
        "outcome": "failed",
        "reason": result.reason,
        "advice": result.advice,
        "parent_version": result.champion.version,
        "lineage": lineage,
        "parent_adapter": result.champion.adapter if lineage == "continue" else None,
    }


def _lineage(plan: RunPlan) -> dict[str, Any]:
    return {
        "parent_version": plan.parent_version,
        "lineage": plan.lineage,
        "parent_adapter": plan.parent,
    }


def _shared_fields(facts: RunFacts, evaluation: int, now: datetime) -> dict[str, Any]:
    return {
        "occurred_at": now,
        "model": facts.batch.model,
        "model_digest": facts.model.digest,
        "run_id": facts.run_id,
        "batch_id": facts.batch.batch_id,
        "lane": facts.batch.lane,
        "evaluation": evaluation,
        "configuration": facts.configuration,
        "base": facts.base.name,
        "base_digest": facts.base.digest,
    }
