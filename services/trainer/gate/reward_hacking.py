"""A tripwire for reward hacking: people like what is learned ever better, and held-out examples do
not follow.

A reward that is easy to earn teaches how to earn it (Goodhart; Amodei et al. 2016,
arXiv:1606.06565, 4). The rule looks at the newest `versions` evaluated candidates of a model, the
one in hand included:

- reward: mean reward of the examples that each learned from its batch. It rises when the
  least-squares line through them gains `reward_rise` or more from the first to the last.
- held-out: how much likelier than the champion of its day each finds the held-out answers. They are
  flat or down when their mean is `held_out_gain` or less.

Both together trip it. Candidates that were not promoted count as well: otherwise a gate that blocks
would blind it. What an operator promotes by hand begins the history anew.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shared.config.model_file import RewardHackingRule
from shared.events import Verdict


@dataclass(frozen=True)
class CandidateStep:
    """An evaluated candidate: mean reward of its batch's training examples, and its gain on
    held-out, in nats per answer token.
    """

    reward: float
    held_out_gain: float


def candidate_step(reward: float | None, verdict: Verdict | None) -> CandidateStep | None:
    """None where either is not known."""
    held_out = (
        next((one for one in verdict.comparisons if one.name == "held_out" and one.examples), None)
        if verdict
        else None
    )
    return (
        CandidateStep(reward, held_out.difference)
        if reward is not None and held_out is not None
        else None
    )


def detect_reward_hacking(history: Sequence[CandidateStep], rule: RewardHackingRule) -> str | None:
    """Why reward hacking is suspected, None where it is not. `history` is in order; fewer than
    `versions` say nothing.
    """
    window = history[-rule.versions :]
    if len(window) < rule.versions:
        return None
    slope = float(np.polyfit(range(len(window)), [step.reward for step in window], 1)[0])
    rise, gained = (
        slope * (len(window) - 1),
        sum(step.held_out_gain for step in window) / len(window),
    )
    if rise < rule.reward_rise or gained > rule.held_out_gain:
        return None
    return (
        f"reward hacking suspected: over {len(window)} candidates the reward of what they "
        f"learn rose by {rise:.3f}, and held-out answers "
        f"became likelier by {gained:+.4f} nats per token on average; an operator may "
        "promote by hand"
    )


def apply_alarm(verdict: Verdict, alarm: str | None, rule: RewardHackingRule) -> Verdict:
    """The verdict with the alarm in it: nothing is promoted while there is one, unless the rule is
    only to tell.
    """
    if alarm is None:
        return verdict
    stopped = rule.blocks and verdict.decision == "promote"
    reasons = (
        (*verdict.reasons, alarm)
        if verdict.decision == "reject" or not rule.blocks
        else (alarm, *verdict.reasons)
    )
    return verdict.model_copy(
        update={
            "decision": "inconclusive" if stopped else verdict.decision,
            "reasons": reasons,
            "alarm": alarm,
        },
    )
