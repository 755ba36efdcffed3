"""Asking the versions at a model's serving target, one after the other, within limits."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from services.registry.deploy.targets.target import ServingTarget
from shared.errors import RatchetError, Unavailable
from shared.events import Message

MAX_PROMPT_LENGTH = 4000
MAX_VERSIONS = 4
MAX_ANSWER_TOKENS = 512
MAX_AT_ONCE = 2
TIMEOUT_SECONDS = 120.0


class QuestionRefused(RatchetError):
    """The question cannot be asked; the message says what to change."""


class TooManyQuestions(RatchetError):
    """Others are asking at present."""


@dataclass(frozen=True, slots=True)
class AskableVersion:
    """A version at the target, with its alias or "" without one."""

    version: str
    alias: str

    @property
    def is_preselected(self) -> bool:
        return self.alias in ("champion", "challenger")


class Playground:
    """Asks versions. Questions share the machine with applications: few run at once."""

    def __init__(self, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._timeout_seconds = timeout_seconds
        self._running = 0

    async def versions(self, model: str, target: ServingTarget) -> list[AskableVersion]:
        """Return the versions at a target, those with an alias first, then the newest. Raises
        TargetUnavailable or TargetRefused.
        """
        state = await target.inspect(model)
        aliases = {
            state.previous: "previous",
            state.challenger: "challenger",
            state.champion: "champion",
        }
        newest_first = sorted(
            state.versions, key=lambda name: int(name[1:].partition("_")[0]), reverse=True
        )
        order = ("champion", "challenger", "previous", "")
        rows = [AskableVersion(name, aliases.get(name, "")) for name in newest_first]
        return sorted(rows, key=lambda row: order.index(row.alias))

    async def ask(
        self, model: str, target: ServingTarget, versions: Sequence[str], prompt: str
    ) -> dict[str, str]:
        """Return the greedy answer of each version. Raises QuestionRefused, TooManyQuestions,
        TargetUnavailable or TargetRefused.
        """
        if not prompt.strip() or len(prompt) > MAX_PROMPT_LENGTH:
            raise QuestionRefused(f"Enter a prompt of at most {MAX_PROMPT_LENGTH} characters.")
        if not 1 <= len(versions) <= MAX_VERSIONS:
            raise QuestionRefused(f"Choose 1 to {MAX_VERSIONS} versions.")
        if self._running >= MAX_AT_ONCE:
            raise TooManyQuestions("Other questions are being answered. Try again in a moment.")
        self._running += 1
        try:
            async with asyncio.timeout(self._timeout_seconds):
                messages = (Message(role="user", content=prompt),)
                return {
                    version: await target.answer(model, version, messages, MAX_ANSWER_TOKENS)
                    for version in versions
                }
        except TimeoutError as error:
            raise Unavailable(
                f"{target.name} did not answer within {self._timeout_seconds:g} s. Ask fewer "
                "versions, or try again when it has less to do."
            ) from error
        finally:
            self._running -= 1
