"""What a piece of feedback says about its answer, as a number in [-1, 1] with the parts that it is made of.

The reward is the weighted mean of the parts that are there:

- `validation`: 2·score - 1, where an automatic check gave a score in [0, 1];
- `action`: what a person did with the answer. A correction counts against the answer by how much of it had to change;
- `rules`: -1 for an answer that is empty, cut off or repeats itself; absent otherwise, since not being broken is no merit.

Weights come from the model file. Feedback without any part (a withdrawal, a check without a score) has reward 0.
"""

import re
from collections import Counter

from shared.events import FeedbackReceived, FeedbackType, RewardPart
from shared.model_file import RewardPolicy

ACTIONS: dict[FeedbackType, float] = {"thumbs_up": 1.0, "accepted": 1.0, "thumbs_down": -1.0, "regenerated": -0.5}

_TOKEN = re.compile(r"\w+|[^\w\s]")
_RUN = 4
_SHORTEST_REPETITIVE = 24
_LEAST_DISTINCT = 0.5


def reward_of(feedback: FeedbackReceived, policy: RewardPolicy) -> tuple[float, tuple[RewardPart, ...]]:
    """The reward and its parts, in the order validation, action, rules."""
    values = {
        "validation": (_validation(feedback), policy.validation),
        "action": (_action(feedback), policy.action),
        "rules": (_rules(feedback), policy.rules),
    }
    parts = tuple(RewardPart(name=name, value=value, weight=weight) for name, (value, weight) in values.items() if value is not None)
    total = sum(part.weight for part in parts)
    mean = sum(part.value * part.weight for part in parts) / total if total else 0.0
    return max(-1.0, min(1.0, mean)), parts


def change(before: str, after: str) -> float:
    """The share of the words of two texts that is not common to both, in [0, 1]: 1 minus the Sørensen-Dice coefficient of their
    words as multisets. Linear in the length, unlike an edit distance, as it is computed on what strangers send."""
    if before == after:
        return 0.0
    old, new = Counter(_TOKEN.findall(before)), Counter(_TOKEN.findall(after))
    size = old.total() + new.total()
    return 1.0 - 2.0 * (old & new).total() / size if size else 0.0


def is_cut_off(answer: str, finish_reason: str | None) -> bool:
    """Whether generation ended for want of room: its finish reason says so, or a code block was never closed."""
    return finish_reason == "length" or answer.count("```") % 2 == 1


def repeats_itself(answer: str) -> bool:
    """Whether most runs of four words in an answer occur more than once, as in a model that loops."""
    words = _TOKEN.findall(answer)
    if len(words) < _SHORTEST_REPETITIVE:
        return False
    runs = [tuple(words[at : at + _RUN]) for at in range(len(words) - _RUN + 1)]
    return len(set(runs)) / len(runs) < _LEAST_DISTINCT


def _validation(feedback: FeedbackReceived) -> float | None:
    return None if feedback.validation_score is None else 2 * feedback.validation_score - 1


def _action(feedback: FeedbackReceived) -> float | None:
    if feedback.corrected_output is not None and feedback.feedback_type == "correction":
        return -change(feedback.output, feedback.corrected_output)
    return ACTIONS.get(feedback.feedback_type)


def _rules(feedback: FeedbackReceived) -> float | None:
    broken = (
        not feedback.output.strip()
        or is_cut_off(feedback.output, (feedback.tags or {}).get("finish_reason"))
        or repeats_itself(feedback.output)
    )
    return -1.0 if broken else None
