"""Views of the model list and of one model."""

from collections.abc import Mapping
from typing import Any

from services.registry.api.training_requests.requests import view_of
from services.registry.api.views import View, model_view, versions_view
from services.registry.pages.charts import sparkline
from services.registry.pages.scores import trend, verdict_of, with_scores
from services.registry.pages.timeline import timeline
from services.registry.run_records import INACTIVE_STATES
from services.registry.store.database import Session
from services.registry.store.queries import (
    MeanReward,
    deployments_of,
    history_of,
    points_of,
    rewards_by_version,
    runs_of,
)
from services.registry.store.tables import BatchRow, RunRow
from services.registry.store.training_queries import waiting_batches
from services.registry.store.training_request_queries import training_requests_of

_LIMIT = 200
_RUNS = 20
_REQUESTS = 5


def model_summary_view(session: Session, model: str) -> View:
    """Return a model's summary: champion, last verdict, held-out scores, active training runs."""
    runs = runs_of(session, model, _LIMIT)
    versions = _versions(session, model, {})
    return {
        **model_view(session, model),
        "last": next((_last_verdict(run) for run in runs if run.verdict), None),
        "running": [progress_view(run) for run in runs if run.state not in INACTIVE_STATES],
        **_trend(versions),
    }


def model_page_view(session: Session, model: str) -> View:
    """Return a model with its versions, newest runs and timeline. `rewarded` is true if it has live
    rewards.
    """
    rewards = rewards_by_version(session, model)
    runs = runs_of(session, model, _LIMIT)
    versions = _versions(session, model, rewards)
    deployments = deployments_of(session, model, _LIMIT)
    return {
        **model_view(session, model),
        "all_versions": versions,
        "rewarded": bool(rewards),
        "running": [progress_view(run) for run in runs if run.state not in INACTIVE_STATES],
        "waiting": [_waiting_view(batch) for batch in waiting_batches(session, model)],
        "requests": [
            view_of(session, row) for row in training_requests_of(session, model, _REQUESTS)
        ],
        "runs": [{**progress_view(run), "loss": _loss(session, run)} for run in runs[:_RUNS]],
        "timeline": timeline(history_of(session, model, _LIMIT), runs, deployments, rewards),
        **_trend(versions),
    }


def progress_view(run: RunRow) -> View:
    """Return the progress of a run, or its outcome."""
    return {
        "model": run.model,
        "run_id": run.run_id,
        "batch_id": run.batch_id,
        "lane": run.lane,
        "state": run.state,
        "ended": run.state in INACTIVE_STATES,
        "step": run.step,
        "total_steps": run.total_steps,
        "version": run.version,
        "started_at": run.started_at,
        "updated_at": run.updated_at,
        "ended_at": run.ended_at,
        "verdict": verdict_of(run.verdict),
    }


def _waiting_view(batch: BatchRow) -> View:
    return {
        "batch_id": batch.batch_id,
        "number": batch.number,
        "lane": batch.lane,
        "examples": batch.counts["training"],
        "closed_at": batch.closed_at,
    }


def _versions(session: Session, model: str, rewards: Mapping[str, MeanReward]) -> list[View]:
    return [with_scores(row, rewards) for row in versions_view(session, model)]


def _last_verdict(run: RunRow) -> View:
    return {
        "run_id": run.run_id,
        "version": run.version,
        "at": run.ended_at,
        "verdict": verdict_of(run.verdict),
        "state": run.state,
    }


def _trend(versions: list[View]) -> View:
    """Return the held-out scores as a sparkline and a plot, with the live rewards if any."""
    scores = trend(versions)
    rewards = {row["version"]: row["reward"] for row in versions if row["reward"] is not None}
    plot: View = {
        "across": "version",
        "names": [name.partition("_")[0] for name, _ in scores],
        "x": list(range(len(scores))),
        "lines": [
            {
                "label": "held-out log-likelihood (nats per token)",
                "values": [score for _, score in scores],
            }
        ],
    }
    if rewards:
        values = [rewards[name].mean if name in rewards else None for name, _ in scores]
        plot["lines"].append({"label": "mean live reward", "values": values, "scale": "reward"})
    return {"trend": scores, "sparkline": sparkline([score for _, score in scores]), "plot": plot}


def _loss(session: Session, run: RunRow) -> Any:
    return sparkline([point.loss for point in points_of(session, run.run_id)])
