"""Runs of grouped digits, as people write card and telephone numbers."""

import re
from collections.abc import Iterator

_SEPARATOR = r"[-./() \u00a0\u2007\u202f\u2010-\u2015]"
# Not a part of a word or of a hyphenated name (INV-2030), not a ticket's #number, not an amount.
# With a leading + it can only be a telephone number.
_START = r"(?<![\w#$€£¥])(?<!\w-)(?<![$€£¥] )"
_RUN = re.compile(rf"(?:{_START}\(?|(?<!\w)\(?\+)\d(?:(?:(?!\.\s){_SEPARATOR}){{0,3}}+\d)*+")
_ATTACHED = re.compile(r"-?\w")
_LONG_ENOUGH = re.compile(rf"\d(?:{_SEPARATOR}{{0,3}}+\d){{6}}")
_MIN_LENGTH = 7


def has_long_run(text: str) -> bool:
    """Return True if `digit_runs` may find a run; a cheap filter."""
    return _LONG_ENOUGH.search(text) is not None


def digit_runs(text: str) -> Iterator[tuple[int, int]]:
    """Return start and end of each run of seven characters or more. A last group that continues as
    a word ("30 1234567 3rd floor") is left out.
    """
    for match in _RUN.finditer(text):
        end = match.end()
        if _ATTACHED.match(text, end):
            end = _without_last_group(text, match.start(), end)
        if end - match.start() >= _MIN_LENGTH:
            yield match.start(), end


def _without_last_group(text: str, start: int, end: int) -> int:
    while end > start and text[end - 1].isdecimal():
        end -= 1
    while end > start and not text[end - 1].isdecimal():
        end -= 1
    return end
