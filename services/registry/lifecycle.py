"""Life cycle of a version: immutable once registered; the aliases move between versions, by the
moves in `ALLOWED_MOVES`.

Pure. A verdict is valid only against the version that it was measured against: it promotes only
while that version is still the champion.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from shared.errors import RatchetError

Alias = Literal["champion", "previous", "challenger"]
VersionStatus = Literal["new", "challenger", "champion", "previous", "retired"]
AliasMove = Literal["found", "challenge", "set_aside", "promote", "withdraw", "roll_back"]
RegistrationResult = Literal["promoted", "reevaluate", "held"]

ALLOWED_MOVES: Mapping[AliasMove, frozenset[VersionStatus]] = {
    # Bootstrap: the base itself becomes version 0 of a model without versions.
    "found": frozenset({"new"}),
    # A candidate arrives, or arrives again with another evaluation.
    "challenge": frozenset({"new", "challenger", "retired", "previous"}),
    # A candidate arrives during a canary trial of another one: it gets no alias.
    "set_aside": frozenset({"new", "retired", "previous"}),
    # The candidate's verdict is valid, its canary trial passed, or a person decides.
    "promote": frozenset({"challenger", "previous", "retired"}),
    # The candidate failed its re-evaluation or its canary trial.
    "withdraw": frozenset({"challenger"}),
    # Back to an earlier version, or forward again.
    "roll_back": frozenset({"challenger", "previous", "retired"}),
}
"""The statuses from which each move may take a version."""


class IllegalMove(RatchetError):
    """`ALLOWED_MOVES` forbids the move; the message has the current status of the version."""


@dataclass(frozen=True, slots=True)
class Aliases:
    """The versions of a model that its aliases name."""

    champion: str | None = None
    previous: str | None = None
    challenger: str | None = None

    def status_of(self, version: str) -> VersionStatus:
        """Return the status of a registered version."""
        if version == self.champion:
            return "champion"
        if version == self.challenger:
            return "challenger"
        return "previous" if version == self.previous else "retired"


def version_name(number: int, at: datetime) -> str:
    """Return `v{n}_{YYYYMMDD_HHMMSS}`, with `at` in its own time zone."""
    return f"v{number}_{at:%Y%m%d_%H%M%S}"


def version_number(name: str) -> int:
    """Return the number in a version's name."""
    return int(name[1:].partition("_")[0])


def apply_move(aliases: Aliases, kind: AliasMove, version: str, is_new: bool = False) -> Aliases:
    """Return the aliases after a move of `version`. Raises IllegalMove."""
    standing: VersionStatus = "new" if is_new else aliases.status_of(version)
    if standing not in ALLOWED_MOVES[kind] or (kind == "found" and aliases.champion is not None):
        raise IllegalMove(f"{version} is {standing} now, so it cannot {kind.replace('_', ' ')}")
    if kind == "found":
        return replace(aliases, champion=version)
    if kind == "challenge":
        return replace(aliases, challenger=version)
    if kind == "set_aside":
        return aliases
    if kind == "withdraw":
        return replace(aliases, challenger=None)
    challenger = None if version == aliases.challenger else aliases.challenger
    return Aliases(champion=version, previous=aliases.champion, challenger=challenger)


def registration_result(
    aliases: Aliases, baseline_version: str, on_hold: bool, by_canary: bool = False
) -> RegistrationResult:
    """Return the result for a candidate whose verdict is `promote` against `baseline_version`.

    While the model is on hold, or for the duration of a canary trial (`by_canary`), the candidate
    stays challenger: `held`.
    """
    if on_hold:
        return "held"
    if aliases.champion != baseline_version:
        return "reevaluate"
    return "held" if by_canary else "promoted"
