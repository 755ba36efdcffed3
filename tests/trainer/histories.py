"""Outcome events with the fields that the read models of the trainer use."""

from datetime import datetime
from typing import Any

from shared.config.training import TrainingConfig
from shared.events import (
    CheckpointSaved,
    Comparison,
    Decision,
    RunMetrics,
    TrainingRolledBack,
    Verdict,
)
from tests.support.tickets import DIGEST


def verdict(decision: Decision, held_out_gain: float = 0.0) -> Verdict:
    held_out = Comparison(
        name="held_out",
        examples=9,
        baseline=-1,
        candidate=held_out_gain - 1,
        difference=held_out_gain,
        lower=-1,
        upper=1,
        margin=0,
    )
    return Verdict(
        decision=decision,
        baseline_version="v1",
        confidence=0.95,
        reasons=("because",),
        comparisons=(held_out,),
    )


def rolled_back_run(
    run: str, reward: float, held_out_gain: float, at: datetime, evaluation: int = 1
) -> TrainingRolledBack:
    metrics = RunMetrics(
        training_loss=1,
        steps=1,
        epochs=1,
        examples_new=1,
        examples_replayed=0,
        tokens=1,
        train_seconds=1,
        evaluate_seconds=1,
        mean_reward=reward,
    )
    fields: dict[str, Any] = {
        "event_id": run,
        "occurred_at": at,
        "model": "m",
        "model_digest": DIGEST,
        "run_id": run,
        "batch_id": run,
    }
    fields |= {
        "lane": "adaptive",
        "parent_version": "v1",
        "evaluation": evaluation,
        "outcome": "inconclusive",
        "reason": "",
    }
    return TrainingRolledBack(
        **fields,
        configuration=TrainingConfig(),
        metrics=metrics,
        verdict=verdict("inconclusive", held_out_gain),
    )


def saved_checkpoint(run: str, at: datetime, evaluation: int = 1) -> CheckpointSaved:
    """Return the outcome of a run that the gate promoted."""
    fields = rolled_back_run(run, 0.5, 0.0, at, evaluation).model_dump(
        exclude={"outcome", "reason", "advice"}
    )
    return CheckpointSaved.model_validate(
        fields
        | {
            "adapter": {"uri": f"adapters/m/{run}/manifest.json", "digest": DIGEST},
            "base_digest": DIGEST,
            "verdict": verdict("promote"),
            "probes": (),
        }
    )
