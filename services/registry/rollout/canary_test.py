"""Canary trial: assignment of users to the challenger, and the decision from their rewards. Pure.

Each user has a number that is a function of model, challenger and user, uniform over users; users
with a number below `share` get the challenger. This needs no state, is the same on every replica,
and a larger share keeps the users of a smaller one.

The evidence is that of the monitor, over pairs of a reward of the challenger and the next one of
the champion: one e-value tests "the challenger is worse", another "it is better". Either is wrong
with a probability of at most `error`, however often it is evaluated.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from services.registry.rollout.sequential_test import compute_evidence
from shared.config.canary import CanarySettings
from shared.config.monitor import MonitorSettings
from shared.identity import hash_fraction

TrialOutcome = Literal["worse", "better", "not worse"]
IdentityKind = Literal["user", "conversation"]


@dataclass(frozen=True, slots=True)
class TrialEvidence:
    """Evidence of a challenger against the champion served at the same time.

    `worse` and `better` are the two e-values, 1 at first; `challenger` and `champion` are the mean
    rewards of the pairs.
    """

    pairs: int
    worse: float
    better: float
    challenger: float
    champion: float


def in_canary_share(
    model: str, challenger: str, kind: IdentityKind, identifier: str, share: float
) -> bool:
    """True if the user, or the conversation of an unknown user, gets the challenger."""
    return hash_fraction("canary", model, challenger, kind, identifier) < share


def evaluate_pairs(
    challenger: Sequence[float], champion: Sequence[float], rule: CanarySettings
) -> TrialEvidence:
    """Compute the evidence of paired rewards, in the order of arrival of the challenger's."""
    test = MonitorSettings(error=rule.error, minimum_rewards=rule.minimum_rewards)
    worse = compute_evidence(challenger, champion, test)
    better = compute_evidence(champion, challenger, test)
    return TrialEvidence(worse.pairs, worse.e_value, better.e_value, worse.champion, worse.previous)


def decide_trial(
    evidence: TrialEvidence, rule: CanarySettings, is_over: bool
) -> TrialOutcome | None:
    """Return the outcome of a trial, None while it continues. `is_over`: its time has run out."""
    if evidence.worse >= 1 / rule.error:
        return "worse"
    if evidence.better >= 1 / rule.error:
        return "better"
    return "not worse" if is_over or evidence.pairs >= rule.rewards else None
