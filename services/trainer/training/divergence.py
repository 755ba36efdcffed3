"""Early stop for diverging runs: a rule on the losses and gradient norms so far, evaluated after
every step.

A run diverges when, over its last `WINDOW` steps,

- the mean loss is above `LOSS_FACTOR` times the lowest windowed mean so far plus `LOSS_NATS`. The
  loss of the first step, before any update, counts as such a mean, with `LOSS_NATS` added since it
  is of one batch only; or
- the median gradient norm, before clipping, is above `NORM_FACTOR` times each of its median so far,
  that of the first `WINDOW` steps, and the norm at which gradients are clipped.

"So far" means the first `WINDOW` steps and the `BASELINE_STEPS` before the last `WINDOW`. In the
first epoch every step has other examples, and the champion may have mastered those of the steps so
far. There a mean loss below `NEW_NATS`, which examples cost a base that knows nothing of them, is
no divergence.

Healthy runs are noisy. Losses of small batches differ by a nat; norms fall by orders of magnitude
during a run and jump back at an unusual example. So no single step decides, a loss near zero may
double without effect, and norms are also compared with the start. Where the champion has mastered
the first examples, the norms at the start are a hundredth of usual ones. The clipping norm is then
the scale: below it the recipe applies gradients as they are, so no norm near it is unusual. The
rule applies from `2 * WINDOW` steps on.
"""

from collections.abc import Sequence
from statistics import fmean, median

WINDOW = 5
LOSS_FACTOR = 1.5
LOSS_NATS = 1.0
NEW_NATS = 6.0
NORM_FACTOR = 30.0
BASELINE_STEPS = 100


def divergence_reason(
    losses: Sequence[float],
    norms: Sequence[float | None],
    clipping_norm: float,
    epoch_steps: int,
) -> str | None:
    """Describe the divergence of a run, or return None. Takes one loss and one norm per step; a
    norm is None where a step was skipped because its scaled gradients overflowed. Gradients are
    clipped to `clipping_norm`; an epoch has `epoch_steps` steps.
    """
    if len(losses) < 2 * WINDOW:
        return None
    earlier = losses[-WINDOW - BASELINE_STEPS : -WINDOW]
    means = [fmean(earlier[start : start + WINDOW]) for start in range(len(earlier) - WINDOW + 1)]
    lowest_mean, current = (
        min(losses[0] + LOSS_NATS, fmean(losses[:WINDOW]), *means),
        fmean(losses[-WINDOW:]),
    )
    is_new = len(losses) - WINDOW < epoch_steps
    limit = max(LOSS_FACTOR * lowest_mean + LOSS_NATS, NEW_NATS if is_new else 0.0)
    if current > limit:
        return (
            f"the loss rose from {lowest_mean:.2f} to {current:.2f} nats per token "
            f"over {len(losses)} steps"
        )
    first_norms, earlier_norms, latest_norms = (
        _finite(window)
        for window in (norms[:WINDOW], norms[-WINDOW - BASELINE_STEPS : -WINDOW], norms[-WINDOW:])
    )
    if not first_norms or not earlier_norms or len(latest_norms) < WINDOW:
        return None
    usual_norm = max(median(first_norms), median(earlier_norms), clipping_norm)
    if median(latest_norms) > NORM_FACTOR * usual_norm:
        return (
            f"the gradient norm rose from {usual_norm:.3g} to {median(latest_norms):.3g} "
            f"over {len(losses)} steps"
        )
    return None


def _finite(norms: Sequence[float | None]) -> list[float]:
    return [norm for norm in norms if norm is not None]
