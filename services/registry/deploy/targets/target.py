"""What the deployer asks of a place that serves models.

A target keeps versions under immutable names and moves an alias over them; so do the embedded host
(tags and aliases), Ollama (tags and copies) and a folder (folders and a link).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from services.registry.deploy.verification import VerificationResult
from shared.errors import InvalidArtefact, Unavailable
from shared.events import Digest, Probe


@dataclass(frozen=True, slots=True)
class MergedModel:
    """A version as files: the merged model (an absolute path), its digest, the adapter's files by
    name, and its evaluation's answers.
    """

    model: str
    version: str
    path: Path
    digest: Digest
    adapter: Mapping[str, bytes] = field(default_factory=dict)
    probes: tuple[Probe, ...] = ()


@dataclass(frozen=True, slots=True)
class TargetState:
    """What a target has of a model: the version that answers, the one kept at hand before it, all
    with the digests of their files, and the one that is tried beside the champion.
    """

    champion: str | None
    previous: str | None
    versions: Mapping[str, Digest]
    challenger: str | None = None


class TargetUnavailable(Unavailable):
    """The target does not answer at present."""


class TargetRefused(InvalidArtefact):
    """The target answers, and does not do what it was asked; the message says why."""


class ServingTarget(Protocol):
    """Every call raises TargetUnavailable or Refused."""

    @property
    def name(self) -> str:
        """What events call it."""

    @property
    def supports_canary(self) -> bool:
        """Whether a version can answer there beside the champion, under a name of its own."""

    def served_name(self, model: str) -> str:
        """What applications ask for to get the champion."""

    def served_name_of(self, model: str, version: str) -> str:
        """What applications ask for to get this very version; it means something where a target
        serves two.
        """

    async def inspect(self, model: str) -> TargetState:
        """What is there, changing nothing."""

    async def push(self, build: MergedModel) -> None:
        """Have a version there, under its own name, beside what answers. The same again is
        harmless.
        """

    async def verify(self, build: MergedModel) -> VerificationResult:
        """Whether the version, asked under its own name, is the build's file and answers as its
        evaluation did; and how long it takes, beside what answers now.
        """

    async def switch(self, model: str, version: str, previous: str | None) -> None:
        """Let the champion's alias name a version that was pushed; `previous` is kept at hand if it
        is there.
        """

    async def set_challenger(self, model: str, version: str | None) -> None:
        """Let the challenger's alias name a version that was pushed, or nothing, so that the
        version stays at hand while it is tried.
        """

    async def remove(self, model: str, version: str) -> None:
        """Forget a version that no alias names. One that is not there is forgotten already."""
