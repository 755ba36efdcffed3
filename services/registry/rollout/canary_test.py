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

from services.registry.rollout.sequential_test import evidence
from shared.config.canary import CanaryRule
from shared.config.monitor import Monitor
from shared.identity import share_of

Outcome = Literal["worse", "better", "nothing against it"]
Kind = Literal["user", "conversation"]


@dataclass(frozen=True, slots=True)
class Heard:
    """What is known of a challenger and the champion beside it. `worse` and `better` are the wealth
    of the two bettors, 1 at first; the means are those of the pairs.
    """

    pairs: int
    worse: float
    better: float
    challenger: float
    champion: float


def takes_part(model: str, challenger: str, kind: Kind, who: str, share: float) -> bool:
    """Whether a user, or a conversation of somebody who is not known, gets the challenger."""
    return share_of("canary", model, challenger, kind, who) < share


def weigh(challenger: Sequence[float], champion: Sequence[float], rule: CanaryRule) -> Heard:
    """The evidence of paired rewards, in the order in which those of the challenger came."""
    how = Monitor(error=rule.error, minimum_rewards=rule.minimum_rewards)
    worse, better = evidence(challenger, champion, how), evidence(champion, challenger, how)
    return Heard(worse.pairs, worse.wealth, better.wealth, worse.champion, worse.previous)


def decide(heard: Heard, rule: CanaryRule, is_over: bool) -> Outcome | None:
    """What a trial comes to; None while it goes on. `is_over` says whether its time has run out."""
    if heard.worse >= 1 / rule.error:
        return "worse"
    if heard.better >= 1 / rule.error:
        return "better"
    return "nothing against it" if is_over or heard.pairs >= rule.rewards else None
