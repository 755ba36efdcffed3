"""Planning of deployments: the desired state of a target, and the steps that lead there.

Reading the desired state needs a session; the plan itself is pure.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from services.registry.deploy.targets.target import TargetState
from services.registry.lifecycle import version_number
from services.registry.store.database import Session
from services.registry.store.queries import (
    aliases_of,
    newest_deployment,
    version_of,
    was_verified,
)
from shared.events import Digest
from shared.observability.trace_context import traceparent_for_version

Action = Literal["none", "switch", "push and switch"]


@dataclass(frozen=True, slots=True)
class DesiredState:
    """Versions of a model that a target should serve.

    `move` numbers the champion's moves; `recorded_move` is the move that the target is recorded to
    have carried out; `verified_digest` is the digest of the champion's file if that has passed
    verification there. The `challenger` is neither pushed nor removed.
    """

    model: str
    champion: str
    previous: str | None
    move: int
    recorded_move: int | None
    verified_digest: Digest | None
    challenger: str | None = None
    traceparent: str = ""
    """Parent span of a deployment; empty for the base itself, which has no run."""


def read_desired_state(session: Session, model: str, target: str) -> DesiredState | None:
    """Read the desired state of a target; None while the model has no version."""
    aliases = aliases_of(session, model)
    if aliases is None or aliases.champion is None:
        return None
    version = version_of(session, model, aliases.champion)
    assert version is not None, "aliases name versions that exist"
    last = newest_deployment(session, model, target)
    recorded_move = last.move if last and last.state == "deployed" else None
    digest = version.merged_digest
    verified = digest and was_verified(session, model, target, version.name, digest)
    traceparent = (
        traceparent_for_version(version.batch_id, version.run_id)
        if version.batch_id and version.run_id
        else ""
    )
    return DesiredState(
        model,
        aliases.champion,
        aliases.previous,
        aliases.move,
        recorded_move,
        digest if verified else None,
        aliases.challenger,
        traceparent,
    )


def next_action(desired: DesiredState, state: TargetState) -> Action:
    """Return the action that makes a target in `state` serve the champion."""
    present = state.versions.get(desired.champion)
    if desired.verified_digest is None or present != desired.verified_digest:
        return "push and switch"
    if state.champion == desired.champion and desired.recorded_move == desired.move:
        return "none"
    return "switch"


def superfluous(
    desired: DesiredState, state: TargetState, versions: Collection[str], keep: int
) -> list[str]:
    """Return those of `versions` that no alias names, without the `keep` newest."""
    named = {
        desired.champion,
        desired.previous,
        desired.challenger,
        state.champion,
        state.previous,
        state.challenger,
    }
    unnamed = [version for version in versions if version not in named]
    return sorted(unnamed, key=version_number, reverse=True)[keep:]
