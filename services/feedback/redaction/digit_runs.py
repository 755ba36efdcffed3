"""Runs of digits in groups, as people write cards and telephone numbers."""

import re
from collections.abc import Iterator

_SEPARATOR = r"[-./() \u00a0\u2007\u202f\u2010-\u2015]"
# Not a part of a word or of a hyphenated name (INV-2030), not a ticket's #number, not an amount;
# with a + it can only be a telephone's.
_START = r"(?<![\w#$€£¥])(?<!\w-)(?<![$€£¥] )"
_RUN = re.compile(rf"(?:{_START}\(?|(?<!\w)\(?\+)\d(?:(?:(?!\.\s){_SEPARATOR}){{0,3}}+\d)*+")
_ATTACHED = re.compile(r"-?\w")
_LONG_ENOUGH = re.compile(rf"\d(?:{_SEPARATOR}{{0,3}}+\d){{6}}")


def has_long_run(text: str) -> bool:
    """Whether `digit_runs` may find one; cheap."""
    return _LONG_ENOUGH.search(text) is not None


def digit_runs(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of each run of seven characters or more; a last group that a word goes on from
    ("30 1234567 3rd floor") is left off.
    """
    for match in _RUN.finditer(text):
        end = match.end()
        if _ATTACHED.match(text, end):
            end = _without_last_group(text, match.start(), end)
        if end - match.start() >= 7:
            yield match.start(), end


def _without_last_group(text: str, start: int, end: int) -> int:
    while end > start and text[end - 1].isdecimal():
        end -= 1
    while end > start and not text[end - 1].isdecimal():
        end -= 1
    return end
