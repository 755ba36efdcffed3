"""What is wrong with an answer whoever judges it: it is empty, cut off, repeats itself, or is not
in the format that the policy demands.
"""

import re
from collections.abc import Callable
from typing import Literal

from shared.events import FeedbackReceived

Rule = Literal["empty", "cut_off", "repetitive", "format"]

TOKEN = re.compile(r"\w+|[^\w\s]")
_RUN = 4
_SHORTEST_REPETITIVE = 24
_LEAST_DISTINCT = 0.5


def broken_rules(
    feedback: FeedbackReceived, format_fault: Callable[[str], str | None]
) -> tuple[Rule, ...]:
    """The rules that the answer breaks. An empty one breaks only that; what is not there has no
    format.
    """
    answer = feedback.output
    if not answer.strip():
        return ("empty",)
    broken: dict[Rule, bool] = {
        "cut_off": is_cut_off(answer, (feedback.tags or {}).get("finish_reason")),
        "repetitive": repeats_itself(answer),
        "format": format_fault(answer) is not None,
    }
    return tuple(rule for rule, holds in broken.items() if holds)


def is_cut_off(answer: str, finish_reason: str | None) -> bool:
    """Whether generation ended for want of room: its finish reason says so, or a code block was
    never closed.
    """
    return finish_reason == "length" or answer.count("```") % 2 == 1


def repeats_itself(answer: str) -> bool:
    """Whether most runs of four words in an answer occur more than once, as in a model that loops."""
    words = TOKEN.findall(answer)
    if len(words) < _SHORTEST_REPETITIVE:
        return False
    runs = [tuple(words[at : at + _RUN]) for at in range(len(words) - _RUN + 1)]
    return len(set(runs)) / len(runs) < _LEAST_DISTINCT
