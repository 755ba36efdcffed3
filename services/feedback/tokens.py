"""Tokens of an answer: words, signs, and characters of scripts without blanks between words."""

import re

from shared.scripts import MARKS, UNSPACED

_TOKEN = re.compile(rf"[{UNSPACED}]|(?:(?![{UNSPACED}])[\w{MARKS}])+|[^\w\s]")


def tokens_of(text: str) -> list[str]:
    """Return the tokens of a text, in order."""
    return _TOKEN.findall(text)
