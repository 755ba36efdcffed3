"""API responses built from table rows, also used by the pages. `schemas.py` describes them."""

from collections.abc import Collection, Sequence
from typing import Any

from services.registry.rollout.canary_trial import deadline, trial_evidence, trial_rule
from services.registry.store.database import Session
from services.registry.store.queries import (
    adapter_of,
    adapter_removal_of,
    aliases_of,
    canary_targets_of,
    canary_trial_of,
    count_versions,
    deployments_of,
    history_of,
    hold_of,
    lineage_of,
    points_of,
    rewards_by_version,
    versions_of,
)
from services.registry.store.tables import (
    AuditRow,
    DeploymentRow,
    HoldRow,
    RunRow,
    TrainingPauseRow,
    VersionRow,
)
from services.registry.store.training_queries import pause_of, waiting_batches
from services.registry.store.withdrawal_queries import (
    withdrawals_of,
    withdrawn_examples_by_user,
)
from services.registry.versions.withdrawals import withdrawn_ids_by_version
from services.registry.waiting_examples import waiting_examples_view
from shared.identity import run_identity

View = dict[str, Any]

_LIMIT = 200


def model_view(session: Session, model: str) -> View:
    """Return a model with its aliases, its number of versions and its newest deployments."""
    aliases, hold = aliases_of(session, model), hold_of(session, model)
    pause, waiting = pause_of(session, model), waiting_batches(session, model)
    newest: dict[str, View] = {}
    for row in deployments_of(session, model, _LIMIT):
        newest.setdefault(row.target, deployment_view(row))
    return {
        "model": model,
        "champion": aliases.champion if aliases else None,
        "previous": aliases.previous if aliases else None,
        "challenger": aliases.challenger if aliases else None,
        "hold": _hold_view(hold) if hold else None,
        "pause": _pause_view(pause) if pause else None,
        "waiting_batches": len(waiting),
        "waiting_runs": [run_identity(batch.batch_id) for batch in waiting],
        "waiting_examples": waiting_examples_view(session, model),
        "trial": trial_view(session, model),
        "live": [
            {"version": version, "rewards": live.count, "mean": live.mean}
            for version, live in rewards_by_version(session, model).items()
        ],
        "versions": count_versions(session, model),
        "deployments": list(newest.values()),
    }


def trial_view(session: Session, model: str) -> View | None:
    """Return a model's canary trial with its evidence, None without one."""
    trial = canary_trial_of(session, model)
    if trial is None:
        return None
    rule, evidence = trial_rule(trial), trial_evidence(session, trial)
    targets = canary_targets_of(session, trial)
    return {
        "version": trial.version,
        "champion": trial.champion,
        "share": rule.share,
        "began": trial.began,
        "until": deadline(trial),
        "frozen": hold_of(session, model) is not None,
        "pairs": evidence.pairs,
        "of": rule.rewards,
        "challenger_mean": evidence.challenger,
        "champion_mean": evidence.champion,
        "worse": evidence.worse,
        "better": evidence.better,
        "enough": 1 / rule.error,
        "places": [
            {"target": row.target, "state": row.state, "reason": row.reason, "at": row.at}
            for row in targets
        ],
    }


def versions_view(
    session: Session, model: str, versions: Sequence[VersionRow] | None = None
) -> list[View]:
    """Return some versions of a model, by default all of them, newest first."""
    withdrawn = withdrawn_ids_by_version(session, model)
    rows = versions_of(session, model) if versions is None else versions
    return [
        _version_view(session, version, len(withdrawn.get(version.name, ()))) for version in rows
    ]


def version_view(session: Session, version: VersionRow) -> View:
    """Return a version with its run, artefacts and aliases. `verdict` is of the run's newest
    evaluation, `withdrawn_examples` counts the withdrawn examples that it was made with,
    `removed_at` is the removal of its adapter.
    """
    return _version_view(
        session,
        version,
        len(withdrawn_ids_by_version(session, version.model).get(version.name, ())),
    )


def _version_view(session: Session, version: VersionRow, withdrawn: int) -> View:
    row = aliases_of(session, version.model)
    aliases = [
        alias
        for alias in ("champion", "previous", "challenger")
        if row and getattr(row, alias) == version.name
    ]
    adapter = adapter_of(version)
    run = session.get(RunRow, version.run_id) if version.run_id else None
    removal = adapter_removal_of(session, version.run_id)
    return {
        "model": version.model,
        "version": version.name,
        "number": version.number,
        "aliases": aliases,
        "created_at": version.created_at,
        "parent_version": version.parent,
        "run_id": version.run_id,
        "batch_id": version.batch_id,
        "lane": version.lane,
        "path": version.merged_path,
        "digest": version.merged_digest,
        "adapter": adapter.model_dump() if adapter else None,
        "base_digest": version.base_digest,
        "model_digest": version.model_digest,
        "training_loss": version.training_loss,
        "epochs": version.epochs,
        "configuration": version.configuration,
        "metrics": version.metrics,
        "verdict": run.verdict if run else None,
        "withdrawn_examples": withdrawn,
        "removed_at": removal.at if removal else None,
        "removed_reason": removal.reason if removal else None,
    }


def lineage_view(session: Session, version: VersionRow) -> View:
    """Return a version and its ancestors, the base last, each with its run and batch."""
    steps = [
        {
            "version": step.name,
            "parent_version": step.parent,
            "run_id": step.run_id,
            "batch_id": step.batch_id,
            "lane": step.lane,
            "adapter": adapter.model_dump() if (adapter := adapter_of(step)) else None,
            "created_at": step.created_at,
        }
        for step in lineage_of(session, version)
    ]
    return {"model": version.model, "version": version.name, "lineage": steps}


def run_view(session: Session, run: RunRow) -> View:
    """Return a run with its verdict and its loss curve."""
    points = [
        {
            "step": point.step,
            "loss": point.loss,
            "learning_rate": point.learning_rate,
            "gradient_norm": point.gradient_norm,
            "tokens_per_second": point.tokens_per_second,
            "at": point.at,
        }
        for point in points_of(session, run.run_id)
    ]
    return {
        **run_summary_view(run),
        "configuration": run.configuration,
        "metrics": run.metrics,
        "verdict": run.verdict,
        "removed_at": removal.at if (removal := adapter_removal_of(session, run.run_id)) else None,
        "points": points,
    }


def run_summary_view(run: RunRow) -> View:
    """Return a run with its state, without verdict and loss curve."""
    return {
        "run_id": run.run_id,
        "model": run.model,
        "batch_id": run.batch_id,
        "lane": run.lane,
        "parent_version": run.parent_version,
        "version": run.version,
        "state": run.state,
        "step": run.step,
        "total_steps": run.total_steps,
        "evaluation": run.evaluation,
        "reason": run.reason,
        "advice": run.advice,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
    }


def _hold_view(hold: HoldRow) -> View:
    return {
        "since": hold.since,
        "actor": hold.actor,
        "operator": hold.operator,
        "reason": hold.reason,
    }


def _pause_view(pause: TrainingPauseRow) -> View:
    return {"since": pause.since, "operator": pause.operator, "reason": pause.reason}


def history_view(session: Session, model: str) -> list[View]:
    """Return the audit entries of a model, newest first."""
    return [audit_view(row) for row in history_of(session, model, _LIMIT)]


def audit_view(row: AuditRow) -> View:
    return {
        "at": row.at,
        "actor": row.actor,
        "operator": row.operator,
        "action": row.action,
        "from": row.from_version,
        "to": row.to_version,
        "reason": row.reason,
        "evidence": row.evidence,
    }


def withdrawals_view(session: Session, model: str, forgotten: Collection[str]) -> list[View]:
    """Return the withdrawals of some users, newest first: how many withdrawal events came,
    how many examples were waiting or in batches, and the versions that were made with some of them.
    """
    ids_by_version, examples = (
        withdrawn_ids_by_version(session, model),
        withdrawn_examples_by_user(session, model),
    )
    views: dict[str, View] = {}
    for row in withdrawals_of(session, model, forgotten):
        feedback_ids = {example.feedback_id for example in examples.get(row.user, ())}
        view = views.setdefault(
            row.forgotten,
            {
                "forgotten": row.forgotten,
                "user": row.user,
                "at": row.at,
                "reason": row.reason,
                "answers": 0,
                "waiting": 0,
                "examples": len(feedback_ids),
                "batches": len({example.batch_id for example in examples.get(row.user, ())}),
                "versions": [
                    version.name
                    for version in versions_of(session, model)
                    if feedback_ids & ids_by_version.get(version.name, frozenset())
                ],
            },
        )
        view["answers"] += 1
        # Every part of a long withdrawal repeats the number.
        view["waiting"] += row.waiting if row.part == 0 else 0
    return list(views.values())


def deployment_view(row: DeploymentRow) -> View:
    return {
        "target": row.target,
        "version": row.version,
        "state": row.state,
        "step": row.step,
        "reason": row.reason,
        "digest": row.digest,
        "seconds": row.seconds,
        "finding": row.finding,
        "at": row.at,
    }
