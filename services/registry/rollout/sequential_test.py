"""Whether the champion does worse in live use than the version before it: a test that may be looked
at after every reward. Pure.

Rewards lie in [-1, 1]. The i-th reward x_i that the champion earned is set against the i-th reward
y_i of the version before it:

    g_i = (y_i - x_i - d) / (2 + d)        in [-1, 1]; d is the drop that is tolerated

While the champion is not worse by more than d, g_i has a mean of 0 at most. Whoever then stakes a
share b of what he has on every g_i has, of 1 at first,

    K_t(b) = (1 + b g_1) (1 + b g_2) ... (1 + b g_t)

which cannot be expected to grow, and neither can the mean of it over several b, the *wealth*: it is
an e-process. By Ville's inequality it ever reaches 1 / error with a probability of `error` at most,
however often it is looked at, and whatever the rewards' distribution. When the champion is worse it
grows exponentially, about as fast as with the best b.

The mean over shares is the method of mixtures (Robbins 1970; Waudby-Smith and Ramdas 2024,
arXiv:2010.09686, 4.4); pairs of two samples are Shekhar and Ramdas 2023, arXiv:2112.09162; Ville's
inequality and e-processes: Ramdas et al. 2023, arXiv:2210.01948.

What it rests on: that the rewards of either version come from people and questions of the same
kind. A shift of the questions between the two looks like a better or a worse version; only a
canary, which has both answer at the same time, is free of that.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shared.config.monitor import MonitorSettings

_BETS = np.arange(1, 20) / 20
_LARGEST_LOG = 700.0  # of a number that a float can be


@dataclass(frozen=True, slots=True)
class LiveEvidence:
    """What live rewards say of the champion against the version before it. `wealth` is the greatest
    of the wealth since there were enough pairs, 1 before; the means are those of the pairs.
    """

    pairs: int
    e_value: float
    champion: float
    previous: float


def compute_evidence(
    champion: Sequence[float], previous: Sequence[float], rule: MonitorSettings
) -> LiveEvidence:
    """Rewards of both in the order in which they came; those that have no partner yet say nothing."""
    pairs = min(len(champion), len(previous))
    if not pairs:
        return LiveEvidence(0, 1.0, 0.0, 0.0)
    earned, before = np.asarray(champion[:pairs]), np.asarray(previous[:pairs])
    gains = (before - earned - rule.tolerated_drop) / (2 + rule.tolerated_drop)
    logs = np.log1p(np.outer(gains, _BETS)).cumsum(axis=0)
    enough = np.logaddexp.reduce(logs, axis=1)[rule.minimum_rewards - 1 :] - np.log(len(_BETS))
    wealth = float(np.exp(min(enough.max(), _LARGEST_LOG))) if len(enough) else 1.0
    return LiveEvidence(pairs, wealth, float(earned.mean()), float(before.mean()))


def is_worse(evidence: LiveEvidence, rule: MonitorSettings) -> bool:
    """Whether the champion is worse, with a probability of `rule.error` at most that it is not."""
    return evidence.e_value >= 1 / rule.error
