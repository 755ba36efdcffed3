"""One deployment: probe, push, verify, switch; undone when a step fails."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Literal

from services.registry.deploy.merged_models import Builds
from services.registry.deploy.targets.target import Refused, Serving, Target
from services.registry.deploy.verification import Finding
from shared.errors import RatchetError
from shared.events import Digest

Step = Literal["probe", "push", "verify", "switch"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a target shall serve of a model. `move` numbers the champion's moves; `recorded` is the
    move that the target has already been seen to carry out; `verified` is the digest of the
    champion's file if that has answered there as it should. A `challenger` is not brought, and not
    taken away either.
    """

    model: str
    champion: str
    previous: str | None
    move: int
    recorded: int | None
    verified: Digest | None
    challenger: str | None = None
    follows: str = ""
    """The span that a deployment follows, as a traceparent; empty for the base itself, which
    nothing has led to.
    """


@dataclass(frozen=True, slots=True)
class Served:
    """A deployment that succeeded. `finding` is null when these bytes had been verified there
    before.
    """

    digest: Digest
    finding: Finding | None


class Undone(RatchetError):
    """A deployment that failed; what answered before still does."""

    def __init__(self, step: Step, reason: str, serving: str | None) -> None:
        super().__init__(f"{step}: {reason}")
        self.step = step
        self.reason = reason
        self.serving = serving


SLOWDOWN = 5.0
"""How many times as long per token as what answers now a version may take, unless a setting says
otherwise.
"""


async def deploy(
    wanted: Wanted, target: Target, builds: Builds, slowdown: float = SLOWDOWN
) -> Served | None:
    """Let `target` serve the champion; None when it does so already and that is recorded. Raises
    Undone.
    """
    async with step("probe", None):
        serving = await target.probe(wanted.model)
    if wanted.verified is not None and serving.versions.get(wanted.champion) == wanted.verified:
        if serving.champion == wanted.champion and wanted.recorded == wanted.move:
            return None
        served = Served(wanted.verified, None)
    else:
        served = await bring(wanted.model, wanted.champion, target, builds, serving, slowdown)
    try:
        async with step("switch", serving.champion):
            await target.switch(wanted.model, wanted.champion, wanted.previous)
    except Undone:
        await _undo(wanted.model, wanted.champion, target, serving)
        raise
    return served


async def keep_at_hand(wanted: Wanted, target: Target, builds: Builds, keep: int) -> None:
    """Have the previous version at the target, so that going back is instant, and let old ones go
    there and on disk.

    Raises RatchetError; nothing depends on it.
    """
    serving = await target.probe(wanted.model)
    if wanted.previous and wanted.previous not in serving.versions:
        await target.push(await builds.build(wanted.model, wanted.previous))
        await target.switch(wanted.model, wanted.champion, wanted.previous)
    named = {
        wanted.champion,
        wanted.previous,
        wanted.challenger,
        serving.champion,
        serving.previous,
        serving.challenger,
    }
    for version in _oldest_beyond(keep, [name for name in serving.versions if name not in named]):
        await target.remove(wanted.model, version)
    for version in _oldest_beyond(
        keep, [name for name in await builds.on_disk(wanted.model) if name not in named]
    ):
        await builds.drop(wanted.model, version)


async def bring(
    model: str, version: str, target: Target, builds: Builds, serving: Serving, slowdown: float
) -> Served:
    """Push a version and verify it. When that fails, neither the target nor this machine keeps it.
    Raises Undone.
    """
    try:
        async with step("push", serving.champion):
            build = await builds.build(model, version)
            if (
                serving.versions.get(version, build.digest) != build.digest
                and serving.champion != version
            ):
                await target.remove(model, version)
            await target.push(build)
        async with step("verify", serving.champion):
            finding = (await target.verify(build)).unless_slower(slowdown)
            if not finding.passed:
                raise Refused("; ".join(finding.reasons))
    except Undone:
        await builds.drop(model, version)
        await _undo(model, version, target, serving)
        raise
    return Served(build.digest, finding)


async def _undo(model: str, version: str, target: Target, serving: Serving) -> None:
    """Take a version from the target again, unless it is what answers there. The failure that led
    here is the one to tell.
    """
    if serving.champion != version:
        with suppress(RatchetError):
            await target.remove(model, version)


def _oldest_beyond(keep: int, versions: list[str]) -> list[str]:
    newest_first = sorted(versions, key=lambda name: int(name[1:].partition("_")[0]), reverse=True)
    return newest_first[keep:]


@asynccontextmanager
async def step(name: Step, serving: str | None) -> AsyncIterator[None]:
    """A step of a deployment, while `serving` answers. Raises Undone for whatever fails in it."""
    try:
        yield
    except RatchetError as error:
        raise Undone(name, str(error), serving) from error
