"""The parts of a reward: named values in [-1, 1] whose weighted mean is the reward.

- `validation`: 2·score - 1, if the event has a validation score in [0, 1];
- `action`: the configured value of a user's action on the answer;
- `correction`: from 0 (nothing changed) to -1 (everything changed);
- `rules`: -1 for an answer that breaks rules, with their names; absent otherwise, because breaking
  no rule is no merit.

Weights and action values come from the model file. Feedback without any part (a retraction, a
validation without a score) has reward 0.
"""

from collections import Counter
from collections.abc import Sequence

from services.feedback.rules import Rule
from services.feedback.tokens import tokens_of
from shared.config.reward_policy import RewardPolicy
from shared.events import FeedbackReceived, RewardPart


def reward_parts(
    feedback: FeedbackReceived, broken_rules: Sequence[Rule], policy: RewardPolicy
) -> tuple[RewardPart, ...]:
    """Return the parts that are present, in the order of the module's docstring."""
    parts = []
    if feedback.validation_score is not None:
        value = 2 * feedback.validation_score - 1
        parts.append(RewardPart(name="validation", value=value, weight=policy.validation))
    action_value = getattr(policy.actions, feedback.feedback_type, None)
    if action_value is not None:
        parts.append(RewardPart(name="action", value=action_value, weight=policy.action))
    if feedback.feedback_type == "correction" and feedback.corrected_output is not None:
        distance = word_distance(feedback.output, feedback.corrected_output)
        parts.append(
            RewardPart(name="correction", value=-distance, weight=policy.correction_weight)
        )
    if broken_rules:
        reason = ", ".join(broken_rules)
        parts.append(RewardPart(name="rules", value=-1.0, weight=policy.rules, reason=reason))
    return tuple(parts)


def word_distance(before: str, after: str) -> float:
    """Return the share of words not common to two texts, in [0, 1]: 1 minus the Sørensen-Dice
    coefficient of their multisets of words. In scripts without blanks between words, each character
    counts as a word.

    Linear in the length, unlike an edit distance, because the texts come from outside.
    """
    if before == after:
        return 0.0
    old, new = Counter(tokens_of(before)), Counter(tokens_of(after))
    size = old.total() + new.total()
    return 1.0 - 2.0 * (old & new).total() / size if size else 0.0
