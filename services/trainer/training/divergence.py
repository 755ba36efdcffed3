"""When a run is past saving: a rule on its losses and gradient norms so far, looked at after every
step.

A run diverges when, over its last `WINDOW` steps,

- the mean loss is above `LOSS_FACTOR` times the lowest mean of a window so far plus `LOSS_NATS`;
  the loss of the very first step, which nothing was learned before, counts as such a mean, with
  `LOSS_NATS` added since it is of one batch only; or
- the median gradient norm, before clipping, is above `NORM_FACTOR` times both its median so far and
  that of the first `WINDOW` steps.

"So far" is the first `WINDOW` steps and the `USUAL` before the last `WINDOW`.

Honest runs are noisy: batches of a few examples differ by a nat, and norms fall by orders of
magnitude while a run learns and leap back at an odd example. So one step decides nothing, a loss
near zero may double without meaning anything, and norms are compared with the start as well.
Nothing is said before `2 * WINDOW` steps.
"""

from collections.abc import Sequence
from statistics import fmean, median

WINDOW = 5
LOSS_FACTOR = 1.5
LOSS_NATS = 1.0
NORM_FACTOR = 30.0
BASELINE_STEPS = 100


def divergence_reason(losses: Sequence[float], norms: Sequence[float | None]) -> str | None:
    """What is wrong, in words; None while nothing is. Both have one value a step; a norm is None
    where a step was left out because its scaled gradients overflowed.
    """
    if len(losses) < 2 * WINDOW:
        return None
    earlier = losses[-WINDOW - BASELINE_STEPS : -WINDOW]
    means = [fmean(earlier[start : start + WINDOW]) for start in range(len(earlier) - WINDOW + 1)]
    lowest, now = (
        min(losses[0] + LOSS_NATS, fmean(losses[:WINDOW]), *means),
        fmean(losses[-WINDOW:]),
    )
    if now > LOSS_FACTOR * lowest + LOSS_NATS:
        return (
            f"the loss rose from {lowest:.2f} to {now:.2f} nats per token over {len(losses)} steps"
        )
    first, before, latest = (
        _finite(some)
        for some in (norms[:WINDOW], norms[-WINDOW - BASELINE_STEPS : -WINDOW], norms[-WINDOW:])
    )
    if not first or not before or len(latest) < WINDOW:
        return None
    usual = max(median(first), median(before))
    if median(latest) > NORM_FACTOR * usual:
        return (
            f"the gradient norm rose from {usual:.3g} to {median(latest):.3g} over {len(losses)} "
            "steps"
        )
    return None


def _finite(norms: Sequence[float | None]) -> list[float]:
    return [norm for norm in norms if norm is not None]
