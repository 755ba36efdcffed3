"""Placeholders that replace personal data: `<EMAIL_1>`, `<PHONE_2>`."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import get_args

from shared.config.redaction_policy import PERSONAL_DATA_KINDS
from shared.redaction.pii_match import PiiKind

_KINDS = "|".join(kind.upper() for kind in (*PERSONAL_DATA_KINDS, *get_args(get_args(PiiKind)[1])))
PLACEHOLDER = re.compile(rf"<({_KINDS})_([0-9]{{1,6}})>")


def placeholders_in(text: str) -> frozenset[str]:
    """Return the placeholders of a redacted text."""
    if "<" not in text:
        return frozenset()
    return frozenset(match.group() for match in PLACEHOLDER.finditer(text))


class Placeholders:
    """The placeholders of one event: equal values share a number, different values do not.

    Numbers of placeholders already in `texts` (of an application that redacts itself) are not
    reused. `counts` holds the number of replaced matches by kind.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._numbers: dict[tuple[PiiKind, str], int] = {}
        self._highest: Counter[str] = Counter()
        for text in texts:
            for kind, number in PLACEHOLDER.findall(text) if "<" in text else ():
                self._highest[kind] = max(self._highest[kind], int(number))
        self.counts: Counter[PiiKind] = Counter()

    def placeholder_for(self, kind: PiiKind, value: str) -> str:
        """Return the placeholder of a value, and count it."""
        name = kind.upper()
        if (kind, value) not in self._numbers:
            self._highest[name] += 1
            self._numbers[kind, value] = self._highest[name]
        self.counts[kind] += 1
        return f"<{name}_{self._numbers[kind, value]}>"
