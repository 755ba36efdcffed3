"""Timeline of a model: verdicts, alias moves, withdrawals and deployments, newest first. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from services.registry.store.queries import MeanReward
from services.registry.store.tables import AuditRow, DeploymentRow, RunRow

_ENDED_WITHOUT_A_MOVE = frozenset({"rejected", "inconclusive", "failed"})
_MOVES_TO = frozenset({"promote", "roll_back"})


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """A timeline entry. `kind` is an audit action, a run's final state, or a deployment state;
    `reward` is the version's mean live reward, if it has one.
    """

    at: datetime
    kind: str
    version: str | None
    from_version: str | None
    run_id: str | None
    by: str
    reasons: tuple[str, ...]
    reward: MeanReward | None = None


def timeline(
    history: Sequence[AuditRow],
    runs: Sequence[RunRow],
    deployments: Sequence[DeploymentRow],
    rewards: Mapping[str, MeanReward],
) -> list[TimelineEntry]:
    """Return the timeline of a model, newest first. A challenger that was promoted immediately has
    only the entry of its promotion; a run without a version has the entry of its verdict.
    """
    promoted = {(row.to_version, row.at) for row in history if row.action == "promote"}
    audited = [
        row
        for row in history
        if not (row.action == "challenge" and (row.to_version, row.at) in promoted)
    ]
    entries = [
        *(_of_deployment(row) for row in deployments),
        *(_of_history(row, rewards) for row in audited),
        *(
            _of_run(run)
            for run in runs
            if run.state in _ENDED_WITHOUT_A_MOVE and run.ended_at is not None
        ),
    ]
    return sorted(entries, key=lambda entry: entry.at, reverse=True)


def _of_history(row: AuditRow, rewards: Mapping[str, MeanReward]) -> TimelineEntry:
    verdict = row.evidence.get("verdict") or {}
    reasons = verdict.get("reasons") if row.action == "promote" else None
    return TimelineEntry(
        at=row.at,
        kind=row.action,
        version=row.to_version,
        from_version=row.from_version if row.action in _MOVES_TO else None,
        run_id=row.evidence.get("run_id"),
        by=row.operator or row.actor,
        reasons=tuple(reasons or [row.reason]),
        reward=rewards.get(row.to_version or "") if row.action in _MOVES_TO else None,
    )


def _of_run(run: RunRow) -> TimelineEntry:
    assert run.ended_at is not None
    verdict = run.verdict or {}
    reasons = verdict.get("reasons") or [run.reason]
    return TimelineEntry(
        run.ended_at, run.state, run.version, None, run.run_id, "trainer", tuple(reasons)
    )


def _of_deployment(row: DeploymentRow) -> TimelineEntry:
    failed = row.state != "deployed"
    reasons = (f"at {row.step}: {row.reason}",) if failed else (f"took {row.seconds:.1f} s",)
    return TimelineEntry(
        row.at, "undeployed" if failed else "deployed", row.version, None, None, row.target, reasons
    )
