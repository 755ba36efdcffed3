"""In-memory deploy target that can be unavailable, refuse a step, or answer wrongly."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from services.registry.deploy.targets.target import (
    MergedModel,
    TargetRefused,
    TargetState,
    TargetUnavailable,
)
from services.registry.deploy.verification import Timing, VerificationResult
from shared.events import Message


@dataclass
class FakeTarget:
    """A deploy target in memory."""

    name: str = "fake"
    versions: dict[str, str] = field(default_factory=dict)
    champion: str | None = None
    previous: str | None = None
    challenger: str | None = None
    verified: list[str] = field(default_factory=list)
    away: bool = False
    answers_wrongly: set[int] = field(default_factory=set)
    slow: set[int] = field(default_factory=set)
    supports_canary: bool = True
    answers: dict[str, str] = field(default_factory=dict)

    def served_name(self, model: str) -> str:
        return model

    def served_name_of(self, model: str, version: str) -> str:
        return f"{model}:{version}"

    async def inspect(self, model: str) -> TargetState:
        if self.away:
            raise TargetUnavailable("nobody is there")
        return TargetState(self.champion, self.previous, dict(self.versions), self.challenger)

    async def push(self, build: MergedModel) -> None:
        if self.versions.setdefault(build.version, build.digest) != build.digest:
            raise TargetRefused("tags never change")

    async def verify(self, build: MergedModel) -> VerificationResult:
        self.verified.append(build.version)
        number = int(build.version[1:].partition("_")[0])
        wrong = number in self.answers_wrongly
        finding = VerificationResult(
            not wrong, ("probe 1: another answer",) if wrong else (), 1, 1, 0.0
        )
        return finding.with_timings(
            [Timing(0.9 if number in self.slow else 0.1, 1)],
            [Timing(0.1, 1)] if self.champion else [],
        )

    async def answer(
        self, model: str, version: str, messages: Sequence[Message], max_tokens: int
    ) -> str:
        if version not in (await self.inspect(model)).versions:
            raise TargetRefused(f"unknown model '{model}:{version}'")
        return self.answers.get(version, f"{version} answers {messages[-1].content}")

    async def switch(self, model: str, version: str, previous: str | None) -> None:
        if version not in self.versions:
            raise TargetRefused(f"{version} is not there")
        self.champion = version
        self.previous = previous if previous in self.versions else self.previous

    async def set_challenger(self, model: str, version: str | None) -> None:
        if version is not None and version not in self.versions:
            raise TargetRefused(f"{version} is not there")
        self.challenger = version

    async def remove(self, model: str, version: str) -> None:
        if version in (self.champion, self.challenger):
            raise TargetRefused("an alias names it")
        self.versions.pop(version, None)
