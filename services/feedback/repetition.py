"""Repetition in an answer, as when a model loops.

Prose repeats itself if most of its runs of four tokens occur more than once. Data and code repeat
their keys, tags and statements in every record, so there only a loop counts: the same tokens over
and over, with nothing else between. A loop of figures is a matrix or a table.
"""

import re

from services.feedback.tokens import tokens_of

_NGRAM_TOKENS = 4
_MIN_TOKENS = 24
_MIN_DISTINCT_SHARE = 0.5
_MIN_ROUNDS = 4
_FENCE = re.compile(r"^\s*(?:```|~~~)")
# Anchored and possessive: the time is linear in a line.
_DATA = re.compile(
    r"^\s*[\[\](){}<|]|[\[\](){}<>|;\\]\s*+(?:,\s*+)?$"  # brackets, tags, rows of a table
    r"|^\s*(?:-\s+)?[\w.\"'-]+\s*[:=]\s*\S"  # keys with values
    r"|^(?=.*\d)(?!.*[^\W\d_]{3})"  # figures
    r"|^[^\t]*\t[^\t]*\t|^(?:[^;]*;){3}|^(?:[^,]*,(?!\s)){4}"  # columns
    r"|^\s*(?:SELECT|INSERT|UPDATE|DELETE|CREATE|ALTER|VALUES)\b"
)
_MAX_LINE = 2000


def is_repetitive(answer: str) -> bool:
    """Return True if prose in an answer repeats itself, or most of the answer is a loop."""
    return _repeats_runs(tokens_of(_prose(answer))) or _is_loop(tokens_of(answer))


def _prose(answer: str) -> str:
    """Return the lines of an answer that are neither in a code block nor data."""
    lines, is_fenced = [], False
    for line in answer.splitlines():
        if _FENCE.match(line):
            is_fenced = not is_fenced
        elif not is_fenced and not _DATA.search(line[:_MAX_LINE]):
            lines.append(line)
    return "\n".join(lines)


def _repeats_runs(tokens: list[str]) -> bool:
    if len(tokens) < _MIN_TOKENS:
        return False
    runs = [
        tuple(tokens[start : start + _NGRAM_TOKENS])
        for start in range(len(tokens) - _NGRAM_TOKENS + 1)
    ]
    return len(set(runs)) / len(runs) < _MIN_DISTINCT_SHARE


def _is_loop(tokens: list[str]) -> bool:
    """Return True if most of the tokens are one run of words, repeated four times or more.

    Its length is the distance between two occurrences of the run of tokens in the middle, which is
    a part of every loop that is longer than half of the text.
    """
    if len(tokens) < _MIN_TOKENS:
        return False
    middle = len(tokens) // 2
    run = tokens[middle : middle + _NGRAM_TOKENS]
    period = next(
        (
            distance
            for distance in range(1, len(tokens) // _MIN_ROUNDS + 1)
            if tokens[middle - distance : middle - distance + _NGRAM_TOKENS] == run
        ),
        None,
    )
    if period is None:
        return False
    start, end = middle, middle + _NGRAM_TOKENS
    while start > period and tokens[start - 1] == tokens[start - 1 - period]:
        start -= 1
    while end < len(tokens) and tokens[end] == tokens[end - period]:
        end += 1
    length = end - (start - period)
    has_words = any(any(map(str.isalpha, token)) for token in tokens[start : start + period])
    return has_words and length >= max(len(tokens) / 2, _MIN_ROUNDS * period)
