"""Serving targets as the deployer sees them.

A target keeps versions under immutable names and moves an alias over them; so do the embedded host
(tags and aliases), Ollama (tags and copies) and a folder (folders and a link).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from services.registry.deploy.verification import VerificationResult
from shared.errors import InvalidArtefact, Unavailable
from shared.events import Digest, Message, Probe


@dataclass(frozen=True, slots=True)
class MergedModel:
    """A version ready to deploy: the merged file (absolute path), its digest, the adapter's files
    by name, and the probes with the answers of its evaluation.
    """

    model: str
    version: str
    path: Path
    digest: Digest
    adapter: Mapping[str, bytes] = field(default_factory=dict)
    probes: tuple[Probe, ...] = ()


@dataclass(frozen=True, slots=True)
class TargetState:
    """State of a model at a target: the versions that the aliases name, and the digest of the file
    of every version there.
    """

    champion: str | None
    previous: str | None
    versions: Mapping[str, Digest]
    challenger: str | None = None


class TargetUnavailable(Unavailable):
    """The target does not answer at present."""


class TargetRefused(InvalidArtefact):
    """The target answers, but refuses the request; the message says why."""


class ServingTarget(Protocol):
    """A place that serves versions. Every call raises TargetUnavailable or TargetRefused."""

    @property
    def name(self) -> str:
        """Name in events."""

    @property
    def supports_canary(self) -> bool:
        """True if a challenger can be served at the same time as the champion."""

    def served_name(self, model: str) -> str:
        """Return the model name that applications request for the champion."""

    def served_name_of(self, model: str, version: str) -> str:
        """Return the model name that applications request for one version; usable only if the
        target supports canaries.
        """

    async def inspect(self, model: str) -> TargetState:
        """Return what is there; changes nothing."""

    async def push(self, merged: MergedModel) -> None:
        """Make a version available under its own name, without switching to it. Idempotent."""

    async def verify(self, merged: MergedModel) -> VerificationResult:
        """Check that the pushed version has the file of `merged` and answers as its evaluation did,
        and time it and the version served now.
        """

    async def answer(
        self, model: str, version: str, messages: Sequence[Message], max_tokens: int
    ) -> str:
        """Return the greedy answer of a pushed version; usable only if the target supports
        canaries.
        """

    async def switch(self, model: str, version: str, previous: str | None) -> None:
        """Let the champion alias name a pushed version; `previous` gets an alias if it is there."""

    async def set_challenger(self, model: str, version: str | None) -> None:
        """Let the challenger alias name a pushed version, which protects it from removal; None
        removes the alias.
        """

    async def remove(self, model: str, version: str) -> None:
        """Delete a version that no alias names. A missing version is not an error."""
