"""What is wrong with an answer whoever judges it: it is empty, cut off, repeats itself, or is not
in the format that the policy demands.
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
    """The rules that the answer breaks. An empty one breaks only that; what is not there has no
    format.
    """
    answer = feedback.output
    if not answer.strip():
        return ("empty",)
    broken: dict[Rule, bool] = {
        "cut_off": is_cut_off(answer, (feedback.tags or {}).get("finish_reason")),
        "repetitive": is_repetitive(answer),
        "format": format_error(answer) is not None,
    }
    return tuple(rule for rule, holds in broken.items() if holds)


def is_cut_off(answer: str, finish_reason: str | None) -> bool:
    """Whether generation ended for want of room: its finish reason says so, or a code block was
    never closed.
    """
    return finish_reason == "length" or answer.count("```") % 2 == 1


def is_repetitive(answer: str) -> bool:
    """Whether most runs of four words in an answer occur more than once, as in a model that loops."""
    words = TOKEN_PATTERN.findall(answer)
    if len(words) < _MIN_WORDS:
        return False
    runs = [tuple(words[at : at + _NGRAM_WORDS]) for at in range(len(words) - _NGRAM_WORDS + 1)]
    return len(set(runs)) / len(runs) < _MIN_DISTINCT_SHARE
