"""Execution of one deployment: inspect, push, verify, switch; undone if a step fails."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Literal

from services.registry.deploy.desired_state import DesiredState
from services.registry.deploy.merged_models import MergedModels
from services.registry.deploy.targets.target import ServingTarget, TargetRefused, TargetState
from services.registry.deploy.verification import VerificationResult
from services.registry.lifecycle import version_number
from shared.errors import RatchetError
from shared.events import Digest

Step = Literal["probe", "push", "verify", "switch"]
Action = Literal["none", "switch", "push and switch"]


@dataclass(frozen=True, slots=True)
class DeployedVersion:
    """A successful deployment. `verification` is None if the same file had been verified at this
    target before.
    """

    digest: Digest
    verification: VerificationResult | None


class DeploymentUndone(RatchetError):
    """A failed deployment; the target still serves what it served before."""

    def __init__(self, step: Step, reason: str, serving: str | None) -> None:
        super().__init__(f"{step}: {reason}")
        self.step = step
        self.reason = reason
        self.serving = serving


DEFAULT_SLOWDOWN = 5.0
"""Largest accepted ratio of a version's time per token to that of the version served now."""


async def deploy(
    desired: DesiredState,
    target: ServingTarget,
    merged_models: MergedModels,
    slowdown: float = DEFAULT_SLOWDOWN,
) -> DeployedVersion | None:
    """Let `target` serve the champion; None if it already does and that is recorded. Raises
    DeploymentUndone.
    """
    async with deployment_step("probe", None):
        state = await target.inspect(desired.model)
    action = _next_action(desired, state)
    if action == "none":
        return None
    if action == "switch" and desired.verified_digest is not None:
        deployed = DeployedVersion(desired.verified_digest, None)
    else:
        deployed = await push_and_verify(
            desired.model, desired.champion, target, merged_models, state, slowdown
        )
    try:
        async with deployment_step("switch", state.champion):
            await target.switch(desired.model, desired.champion, desired.previous)
    except DeploymentUndone:
        await _remove_failed(desired.model, desired.champion, target, state)
        raise
    return deployed


async def retain_recent_versions(
    desired: DesiredState, target: ServingTarget, merged_models: MergedModels, keep: int
) -> None:
    """Keep the previous version at the target, so that a rollback is instant, and delete old
    versions there and on disk. Raises RatchetError; a failure does not affect serving.
    """
    model = desired.model
    state = await target.inspect(model)
    if desired.previous and desired.previous not in state.versions:
        await target.push(await merged_models.get(model, desired.previous))
        await target.switch(model, desired.champion, desired.previous)
    for version in _superfluous(desired, state, state.versions.keys(), keep):
        await target.remove(model, version)
    on_disk = await merged_models.versions_on_disk(model)
    for version in _superfluous(desired, state, on_disk, keep):
        await merged_models.delete(model, version)


async def push_and_verify(
    model: str,
    version: str,
    target: ServingTarget,
    merged_models: MergedModels,
    state: TargetState,
    slowdown: float,
) -> DeployedVersion:
    """Push a version and verify it; on failure, delete it at the target and on this machine. Raises
    DeploymentUndone.
    """
    try:
        async with deployment_step("push", state.champion):
            merged = await merged_models.get(model, version)
            if (
                state.versions.get(version, merged.digest) != merged.digest
                and state.champion != version
            ):
                await target.remove(model, version)
            await target.push(merged)
        async with deployment_step("verify", state.champion):
            result = _require_passed(await target.verify(merged), slowdown)
    except DeploymentUndone:
        await merged_models.delete(model, version)
        await _remove_failed(model, version, target, state)
        raise
    return DeployedVersion(merged.digest, result)


def _require_passed(result: VerificationResult, slowdown: float) -> VerificationResult:
    """Return a verification that passed and is not slower than accepted. Raises TargetRefused."""
    checked = result.check_slowdown(slowdown)
    if not checked.passed:
        raise TargetRefused("; ".join(checked.reasons))
    return checked


async def _remove_failed(
    model: str, version: str, target: ServingTarget, state: TargetState
) -> None:
    """Remove a version from the target unless it is served there. Errors are suppressed: the
    failure that led here is the one to report.
    """
    if state.champion != version:
        with suppress(RatchetError):
            await target.remove(model, version)


@asynccontextmanager
async def deployment_step(name: Step, serving: str | None) -> AsyncIterator[None]:
    """Run a step of a deployment while `serving` is served. Raises DeploymentUndone for any
    RatchetError of the body.
    """
    try:
        yield
    except RatchetError as error:
        raise DeploymentUndone(name, str(error), serving) from error


def _next_action(desired: DesiredState, state: TargetState) -> Action:
    """Return the action that makes a target in `state` serve the champion."""
    present = state.versions.get(desired.champion)
    if desired.verified_digest is None or present != desired.verified_digest:
        return "push and switch"
    if state.champion == desired.champion and desired.recorded_move == desired.move:
        return "none"
    return "switch"


def _superfluous(
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
