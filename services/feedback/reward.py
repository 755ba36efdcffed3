"""What a piece of feedback says about its answer, as named parts whose weighted mean is the reward
in [-1, 1].

- `validation`: 2·score - 1, where an automatic check gave a score in [0, 1];
- `action`: what a person did with the answer;
- `correction`: how much of the answer had to change, from 0 (nothing) to -1 (all of it);
- `rules`: -1 for an answer that breaks rules, and which; absent otherwise, since not being broken
  is no merit.

Weights, and what an action is worth, come from the model file. Feedback without any part (a
withdrawal, a check without a score) has reward 0.
"""

from collections import Counter
from collections.abc import Sequence

from services.feedback.rules import TOKEN_PATTERN, Rule
from shared.config.reward_policy import RewardPolicy
from shared.events import FeedbackReceived, RewardPart


def reward_parts(
    feedback: FeedbackReceived, broken_rules: Sequence[Rule], policy: RewardPolicy
) -> tuple[RewardPart, ...]:
    """The parts that are there, in the order above. `broken` are the rules that the answer breaks."""
    parts = []
    if feedback.validation_score is not None:
        parts.append(
            RewardPart(
                name="validation", value=2 * feedback.validation_score - 1, weight=policy.validation
            )
        )
    if (worth := getattr(policy.actions, feedback.feedback_type, None)) is not None:
        parts.append(RewardPart(name="action", value=worth, weight=policy.action))
    if feedback.feedback_type == "correction" and feedback.corrected_output is not None:
        distance = word_distance(feedback.output, feedback.corrected_output)
        parts.append(
            RewardPart(name="correction", value=-distance, weight=policy.correction_weight)
        )
    if broken_rules:
        parts.append(
            RewardPart(
                name="rules", value=-1.0, weight=policy.rules, reason=", ".join(broken_rules)
            )
        )
    return tuple(parts)


def word_distance(before: str, after: str) -> float:
    """The share of the words of two texts that is not common to both, in [0, 1]: 1 minus the
    Sørensen-Dice coefficient of their words as multisets. Linear in the length, unlike an edit
    distance, as it is computed on what strangers send.
    """
    if before == after:
        return 0.0
    old, new = Counter(TOKEN_PATTERN.findall(before)), Counter(TOKEN_PATTERN.findall(after))
    size = old.total() + new.total()
    return 1.0 - 2.0 * (old & new).total() / size if size else 0.0
