"""A challenger on trial: who gets its answers, and what follows from what they say. Pure.

The share of a user is a number that is fixed by model, challenger and user and spread evenly over
users: those below `share` get the challenger. It needs no memory, is the same everywhere, and a
larger share keeps those who were in a smaller one.

The evidence is that of the monitor, over pairs of an opinion of the challenger and the next one of
the champion: one bettor stakes on "the challenger is worse", another on "it is better". Either is
wrong with a probability of `error` at most, however often one looks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from services.registry.rollout.sequential_test import compute_evidence
from shared.config.canary import CanarySettings
from shared.config.monitor import MonitorSettings
from shared.identity import hash_fraction

TrialOutcome = Literal["worse", "better", "nothing against it"]
IdentityKind = Literal["user", "conversation"]


@dataclass(frozen=True, slots=True)
class TrialEvidence:
    """What is known of a challenger and the champion beside it. `worse` and `better` are the wealth
    of the two bettors, 1 at first; the means are those of the pairs.
    """

    pairs: int
    worse: float
    better: float
    challenger: float
    champion: float


def in_canary_share(
    model: str, challenger: str, kind: IdentityKind, identifier: str, share: float
) -> bool:
    """Whether a user, or a conversation of somebody who is not known, gets the challenger."""
    return hash_fraction("canary", model, challenger, kind, identifier) < share


def evaluate_pairs(
    challenger: Sequence[float], champion: Sequence[float], rule: CanarySettings
) -> TrialEvidence:
    """The evidence of paired rewards, in the order in which those of the challenger came."""
    how = MonitorSettings(error=rule.error, minimum_rewards=rule.minimum_rewards)
    worse, better = (
        compute_evidence(challenger, champion, how),
        compute_evidence(champion, challenger, how),
    )
    return TrialEvidence(worse.pairs, worse.e_value, better.e_value, worse.champion, worse.previous)


def decide_trial(
    evidence: TrialEvidence, rule: CanarySettings, is_over: bool
) -> TrialOutcome | None:
    """What a trial comes to; None while it goes on. `is_over` says whether its time has run out."""
    if evidence.worse >= 1 / rule.error:
        return "worse"
    if evidence.better >= 1 / rule.error:
        return "better"
    return "nothing against it" if is_over or evidence.pairs >= rule.rewards else None
