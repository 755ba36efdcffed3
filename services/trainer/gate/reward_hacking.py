"""Alarm for reward hacking: feedback improves from batch to batch, and held-out examples do not.

A reward that is easy to earn teaches how to earn it (Goodhart; Amodei et al. 2016,
arXiv:1606.06565, 4). The rule uses the newest `versions` evaluated candidates of a model, including
the current one:

- reward: mean reward of the examples that each learned from its batch. It rises if the
  least-squares line through them gains `reward_rise` or more from the first to the last.
- held-out: gain in log-likelihood of the held-out answers over the champion of that time. It is
  flat or down if the mean is `held_out_gain` or less.

Both together raise the alarm. Candidates that were not promoted count as well: otherwise a gate
that blocks would blind the alarm. A promotion by an operator restarts the history.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shared.config.gate import RewardHackingRule
from shared.events import Verdict


@dataclass(frozen=True)
class CandidateStep:
    """An evaluated candidate: mean reward of its batch's training examples, and its gain on
    held-out, in nats per answer token.
    """

    reward: float
    held_out_gain: float


def candidate_step(reward: float | None, verdict: Verdict | None) -> CandidateStep | None:
    """Return None if the reward or the held-out gain is unknown."""
    comparisons = verdict.comparisons if verdict else ()
    gain = next(
        (row.difference for row in comparisons if row.name == "held_out" and row.examples), None
    )
    return CandidateStep(reward, gain) if reward is not None and gain is not None else None


def detect_reward_hacking(history: Sequence[CandidateStep], rule: RewardHackingRule) -> str | None:
    """Return the alarm's text, or None without suspicion or with fewer than `versions` steps.
    `history` is in order of time.
    """
    window = history[-rule.versions :]
    if len(window) < rule.versions:
        return None
    slope = float(np.polyfit(range(len(window)), [step.reward for step in window], 1)[0])
    rise = slope * (len(window) - 1)
    gain = sum(step.held_out_gain for step in window) / len(window)
    if rise < rule.reward_rise or gain > rule.held_out_gain:
        return None
    return (
        f"reward hacking suspected: over {len(window)} candidates the mean reward of their "
        f"training examples rose by {rise:.3f}, and the log-likelihood of held-out answers "
        f"changed by {gain:+.4f} nats per token on average; an operator may promote by hand"
    )


def apply_alarm(verdict: Verdict, alarm: str | None, rule: RewardHackingRule) -> Verdict:
    """Return the verdict with the alarm. It blocks promotion unless the rule only reports."""
    if alarm is None:
        return verdict
    is_blocked = rule.blocks and verdict.decision == "promote"
    reasons = (
        (*verdict.reasons, alarm)
        if verdict.decision == "reject" or not rule.blocks
        else (alarm, *verdict.reasons)
    )
    return verdict.model_copy(
        update={
            "decision": "inconclusive" if is_blocked else verdict.decision,
            "reasons": reasons,
            "alarm": alarm,
        },
    )
