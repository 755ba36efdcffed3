"""Rules on the answer itself, independent of its feedback: not empty, not cut off, not repetitive,
and in the format of the policy.
"""

import re
from collections.abc import Callable
from typing import Literal

from shared.events import FeedbackReceived

Rule = Literal["empty", "cut_off", "repetitive", "format"]

TOKEN_PATTERN = re.compile(r"\w+|[^\w\s]")
_NGRAM_WORDS = 4
_MIN_WORDS = 24
_MIN_DISTINCT_SHARE = 0.5


def broken_rules(
    feedback: FeedbackReceived, format_error: Callable[[str], str | None]
) -> tuple[Rule, ...]:
    """Return the rules that the answer breaks. An empty answer breaks only `empty`."""
    answer = feedback.output
    if not answer.strip():
        return ("empty",)
    broken: dict[Rule, bool] = {
        "cut_off": is_cut_off(answer, (feedback.tags or {}).get("finish_reason")),
        "repetitive": is_repetitive(answer),
        "format": format_error(answer) is not None,
    }
    return tuple(rule for rule, is_broken in broken.items() if is_broken)


def is_cut_off(answer: str, finish_reason: str | None) -> bool:
    """Return True if generation reached its length limit, or a code fence is not closed."""
    return finish_reason == "length" or answer.count("```") % 2 == 1


def is_repetitive(answer: str) -> bool:
    """Return True if most 4-grams of words occur more than once, as when a model loops."""
    words = TOKEN_PATTERN.findall(answer)
    if len(words) < _MIN_WORDS:
        return False
    ngrams = [
        tuple(words[start : start + _NGRAM_WORDS]) for start in range(len(words) - _NGRAM_WORDS + 1)
    ]
    return len(set(ngrams)) / len(ngrams) < _MIN_DISTINCT_SHARE
