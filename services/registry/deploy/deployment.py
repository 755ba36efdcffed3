"""One deployment: probe, push, verify, switch; undone when a step fails."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Literal

from services.registry.deploy.merged_models import MergedModels
from services.registry.deploy.targets.target import ServingTarget, TargetRefused, TargetState
from services.registry.deploy.verification import VerificationResult
from shared.errors import RatchetError
from shared.events import Digest

Step = Literal["probe", "push", "verify", "switch"]


@dataclass(frozen=True, slots=True)
class DesiredState:
    """What a target shall serve of a model. `move` numbers the champion's moves; `recorded` is the
    move that the target has already been seen to carry out; `verified` is the digest of the
    champion's file if that has answered there as it should. A `challenger` is not brought, and not
    taken away either.
    """

    model: str
    champion: str
    previous: str | None
    move: int
    recorded_move: int | None
    verified_digest: Digest | None
    challenger: str | None = None
    traceparent: str = ""
    """The span that a deployment follows, as a traceparent; empty for the base itself, which
    nothing has led to.
    """


@dataclass(frozen=True, slots=True)
class DeployedVersion:
    """A deployment that succeeded. `finding` is null when these bytes had been verified there
    before.
    """

    digest: Digest
    verification: VerificationResult | None


class DeploymentUndone(RatchetError):
    """A deployment that failed; what answered before still does."""

    def __init__(self, step: Step, reason: str, serving: str | None) -> None:
        super().__init__(f"{step}: {reason}")
        self.step = step
        self.reason = reason
        self.serving = serving


DEFAULT_SLOWDOWN = 5.0
"""How many times as long per token as what answers now a version may take, unless a setting says
otherwise.
"""


async def deploy(
    desired: DesiredState,
    target: ServingTarget,
    merged_models: MergedModels,
    slowdown: float = DEFAULT_SLOWDOWN,
) -> DeployedVersion | None:
    """Let `target` serve the champion; None when it does so already and that is recorded. Raises
    Undone.
    """
    async with deployment_step("probe", None):
        serving = await target.inspect(desired.model)
    if (
        desired.verified_digest is not None
        and serving.versions.get(desired.champion) == desired.verified_digest
    ):
        if serving.champion == desired.champion and desired.recorded_move == desired.move:
            return None
        served = DeployedVersion(desired.verified_digest, None)
    else:
        served = await push_and_verify(
            desired.model, desired.champion, target, merged_models, serving, slowdown
        )
    try:
        async with deployment_step("switch", serving.champion):
            await target.switch(desired.model, desired.champion, desired.previous)
    except DeploymentUndone:
        await _remove_failed(desired.model, desired.champion, target, serving)
        raise
    return served


async def retain_recent_versions(
    desired: DesiredState, target: ServingTarget, merged_models: MergedModels, keep: int
) -> None:
    """Have the previous version at the target, so that going back is instant, and let old ones go
    there and on disk.

    Raises RatchetError; nothing depends on it.
    """
    serving = await target.inspect(desired.model)
    if desired.previous and desired.previous not in serving.versions:
        await target.push(await merged_models.get(desired.model, desired.previous))
        await target.switch(desired.model, desired.champion, desired.previous)
    named = {
        desired.champion,
        desired.previous,
        desired.challenger,
        serving.champion,
        serving.previous,
        serving.challenger,
    }
    for version in _all_but_newest(keep, [name for name in serving.versions if name not in named]):
        await target.remove(desired.model, version)
    for version in _all_but_newest(
        keep,
        [name for name in await merged_models.versions_on_disk(desired.model) if name not in named],
    ):
        await merged_models.delete(desired.model, version)


async def push_and_verify(
    model: str,
    version: str,
    target: ServingTarget,
    merged_models: MergedModels,
    serving: TargetState,
    slowdown: float,
) -> DeployedVersion:
    """Push a version and verify it. When that fails, neither the target nor this machine keeps it.
    Raises Undone.
    """
    try:
        async with deployment_step("push", serving.champion):
            build = await merged_models.get(model, version)
            if (
                serving.versions.get(version, build.digest) != build.digest
                and serving.champion != version
            ):
                await target.remove(model, version)
            await target.push(build)
        async with deployment_step("verify", serving.champion):
            finding = (await target.verify(build)).check_slowdown(slowdown)
            if not finding.passed:
                raise TargetRefused("; ".join(finding.reasons))
    except DeploymentUndone:
        await merged_models.delete(model, version)
        await _remove_failed(model, version, target, serving)
        raise
    return DeployedVersion(build.digest, finding)


async def _remove_failed(
    model: str, version: str, target: ServingTarget, serving: TargetState
) -> None:
    """Take a version from the target again, unless it is what answers there. The failure that led
    here is the one to tell.
    """
    if serving.champion != version:
        with suppress(RatchetError):
            await target.remove(model, version)


def _all_but_newest(keep: int, versions: list[str]) -> list[str]:
    newest_first = sorted(versions, key=lambda name: int(name[1:].partition("_")[0]), reverse=True)
    return newest_first[keep:]


@asynccontextmanager
async def deployment_step(name: Step, serving: str | None) -> AsyncIterator[None]:
    """A step of a deployment, while `serving` answers. Raises Undone for whatever fails in it."""
    try:
        yield
    except RatchetError as error:
        raise DeploymentUndone(name, str(error), serving) from error
