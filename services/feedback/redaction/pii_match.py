"""What finders say: a piece of personal data, where it stands and which value it is."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from shared.config.redaction_policy import PersonalDataKind

# Stands for what was found before while more is looked for: a letter, so that what touches it is
# read as it was; a rare one, so that what contains it is nobody's.
MASK = "\ua7ff"

PiiKind = PersonalDataKind | Literal["person", "place"]


@dataclass(frozen=True, slots=True)
class PiiMatch:
    """`text[start:end]` is personal data; `value` is the same for all ways to write the same thing."""

    start: int
    end: int
    kind: PiiKind
    value: str


class Finder(Protocol):
    """Finds personal data in a text, in order and without overlaps, in time linear in its length.

    Where something was found before, the text has a run of WALL.
    """

    def __call__(self, text: str, /) -> Iterable[PiiMatch]: ...
