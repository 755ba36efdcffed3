"""Rules on the answer itself, independent of its feedback: not empty, not cut off, not repetitive,
and in the format of the policy.
"""

from collections.abc import Callable
from typing import Literal

from services.feedback.code_fences import has_open_block
from services.feedback.repetition import is_repetitive
from shared.events import FeedbackReceived

Rule = Literal["empty", "cut_off", "repetitive", "format"]


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
    """Return True if generation reached its length limit, or a code block is not closed."""
    return finish_reason == "length" or has_open_block(answer)
