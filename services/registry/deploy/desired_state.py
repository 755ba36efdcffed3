"""The desired state of a deploy target, read from the database."""

from dataclasses import dataclass

from services.registry.store.database import Session
from services.registry.store.queries import (
    aliases_of,
    newest_deployment,
    version_of,
    was_verified,
)
from shared.events import Digest
from shared.observability.trace_context import traceparent_for_version


@dataclass(frozen=True, slots=True)
class DesiredState:
    """Versions of a model that a target should serve.

    `move` numbers the champion's moves; `recorded_move` is the move that the target is recorded to
    have carried out; `verified_digest` is the digest of the champion's file if that has passed
    verification there. The `challenger` is neither pushed nor removed.
    """

    model: str
    champion: str
    champion_number: int
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
        version.number,
        aliases.previous,
        aliases.move,
        recorded_move,
        digest if verified else None,
        aliases.challenger,
        traceparent,
    )
