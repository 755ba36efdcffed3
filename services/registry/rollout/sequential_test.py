"""Sequential test of the champion's live rewards against those of the version before it. It may be
evaluated after every reward. Pure.

Rewards lie in [-1, 1]. The i-th reward x_i of the champion is paired with the i-th reward y_i of
the version before it:

    g_i = (y_i - x_i - d) / (2 + d)        in [-1, 1]; d is the tolerated drop

While the champion is not worse by more than d, g_i has a mean of at most 0. A bettor who starts
with 1 and stakes a share b of the capital on every g_i then has

    K_t(b) = (1 + b g_1) (1 + b g_2) ... (1 + b g_t)

which does not grow in expectation, and neither does its mean over several b, the *wealth* or
e-value: it is an e-process. By Ville's inequality it ever reaches 1 / error with a probability of
at most `error`, however often it is evaluated, and whatever the distribution of the rewards. If the
champion is worse it grows exponentially, about as fast as with the best b.

The mean over shares is the method of mixtures (Robbins 1970; Waudby-Smith and Ramdas 2024,
arXiv:2010.09686, 4.4); pairs of two samples are Shekhar and Ramdas 2023, arXiv:2112.09162; Ville's
inequality and e-processes: Ramdas et al. 2023, arXiv:2210.01948.

Assumption: the rewards of both versions come from the same kinds of users and questions. A shift of
the questions between the two looks like a better or a worse version; only a canary trial, in which
both answer at the same time, is free of that.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shared.config.monitor import MonitorSettings

_BETS = np.arange(1, 20) / 20
_LARGEST_LOG = 700.0  # of a number that a float can represent


@dataclass(frozen=True, slots=True)
class LiveEvidence:
    """Evidence from live rewards of the champion against the version before it.

    `e_value` is the largest one since the minimum number of pairs, 1 before; `champion` and
    `previous` are the mean rewards of the pairs.
    """

    pairs: int
    e_value: float
    champion: float
    previous: float


def compute_evidence(
    champion: Sequence[float], previous: Sequence[float], rule: MonitorSettings
) -> LiveEvidence:
    """Compute the evidence of both versions' rewards, in order of arrival; unpaired ones are
    ignored.
    """
    pairs = min(len(champion), len(previous))
    if not pairs:
        return LiveEvidence(0, 1.0, 0.0, 0.0)
    earned, before = np.asarray(champion[:pairs]), np.asarray(previous[:pairs])
    gains = (before - earned - rule.tolerated_drop) / (2 + rule.tolerated_drop)
    logs = np.log1p(np.outer(gains, _BETS)).cumsum(axis=0)
    enough = np.logaddexp.reduce(logs, axis=1)[rule.minimum_rewards - 1 :] - np.log(len(_BETS))
    e_value = float(np.exp(min(enough.max(), _LARGEST_LOG))) if len(enough) else 1.0
    return LiveEvidence(pairs, e_value, float(earned.mean()), float(before.mean()))


def is_worse(evidence: LiveEvidence, rule: MonitorSettings) -> bool:
    """True if the champion is worse; wrong with a probability of at most `rule.error`."""
    return evidence.e_value >= 1 / rule.error
