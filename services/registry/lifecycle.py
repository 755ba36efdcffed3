"""The life of a version: immutable once registered; aliases move over versions, by the moves that
the table allows.

Pure. A verdict holds against the version that it was measured against: only if that one is still
the champion, it promotes.
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
    # The base itself, as version 0, when a model has none.
    "found": frozenset({"new"}),
    # A candidate arrives, or arrives again with another evaluation.
    "challenge": frozenset({"new", "challenger", "retired", "previous"}),
    # A candidate arrives while another is on trial: it gets no alias.
    "set_aside": frozenset({"new", "retired", "previous"}),
    # A candidate's verdict holds, a trial has nothing against it, or a person decides.
    "promote": frozenset({"challenger", "previous", "retired"}),
    # A candidate was evaluated again and did not hold, or did worse on trial.
    "withdraw": frozenset({"challenger"}),
    # Back to an earlier version, or forward again.
    "roll_back": frozenset({"challenger", "previous", "retired"}),
}
"""From which standing each move may take a version."""


class IllegalMove(RatchetError):
    """A move that the table does not allow; the message says what the version is now."""


@dataclass(frozen=True, slots=True)
class Aliases:
    """Which versions of a model the aliases name."""

    champion: str | None = None
    previous: str | None = None
    challenger: str | None = None

    def status_of(self, version: str) -> VersionStatus:
        """The standing of a registered version."""
        if version == self.champion:
            return "champion"
        if version == self.challenger:
            return "challenger"
        return "previous" if version == self.previous else "retired"


def version_name(number: int, at: datetime) -> str:
    """`v{n}_{YYYYMMDD_HHMMSS}`; `at` is taken as it stands."""
    return f"v{number}_{at:%Y%m%d_%H%M%S}"


def version_number(name: str) -> int:
    """The number in a version's name."""
    return int(name[1:].partition("_")[0])


def apply_move(aliases: Aliases, kind: AliasMove, version: str, is_new: bool = False) -> Aliases:
    """The aliases after a move of `version`. Raises IllegalMove when the table does not allow it."""
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
    """What becomes of a candidate whose verdict is `promote` against `baseline_version`. Of a model
    on hold it stays challenger, and so it does, for the time being, where candidates are tried
    `by_trial`.
    """
    if on_hold:
        return "held"
    if aliases.champion != baseline_version:
        return "reevaluate"
    return "held" if by_canary else "promoted"
