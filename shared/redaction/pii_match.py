"""A match of personal data in a text, and the protocol of the finders that return matches."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from shared.config.redaction_policy import PersonalDataKind

# Masks a match while later finders run. A letter, so that adjacent text keeps its word boundaries;
# a rare one, so that no finder matches text that contains it.
MASK = "\ua7ff"

PiiKind = PersonalDataKind | Literal["person", "place"]


@dataclass(frozen=True, slots=True)
class PiiMatch:
    """`text[start:end]` is personal data; `value` is its normalized form."""

    start: int
    end: int
    kind: PiiKind
    value: str


class Finder(Protocol):
    """Finds personal data in a text, in order and without overlaps, in time linear in its length.

    Earlier matches are masked: runs of MASK in the text.
    """

    def __call__(self, text: str, /) -> Iterable[PiiMatch]: ...
