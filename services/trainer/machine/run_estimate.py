"""Estimate of a run's duration before it starts. Pure.

The arithmetic of training is counted as in Kaplan et al. (arXiv:2001.08361, section 2.1): a token's
forward pass takes two operations for each weight. With frozen weights the backward pass takes two
more, for the gradients of the activations only, and ends where the adapted layers begin. Outputs of
the layers below are cached from epoch to epoch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from services.trainer.machine.memory import ModelShape
from shared.config.training import TrainingConfig
from shared.lane_report import Estimate

ANSWER_SHARE = 1 / 3
"""Of the tokens of an example; logits are computed for these only."""

EFFICIENCY = (0.15, 0.75)
"""Rate of a run over that of a large matrix product: small batches of short examples are at the
lower end.
"""


class RunDuration(NamedTuple):
    """Seconds of an earlier run's training and evaluation."""

    train: float
    evaluate: float


@dataclass(frozen=True, slots=True)
class RunSize:
    """The data of one pass. `basis` says where the number of tokens comes from."""

    examples: int
    tokens: float
    basis: str


def operations(shape: ModelShape, config: TrainingConfig, tokens: float) -> float:
    """Return the floating point operations of a run with `tokens` tokens in each epoch."""
    layer = sum(map(prod, shape.projections())) / shape.layers
    adapted = shape.adapted_layers(config.layers)
    frozen_passes = 1 if shape.packed else config.epochs
    recomputed = 2 if config.gradient_checkpointing else 0
    adapted_operations = (4 + recomputed) * layer * adapted * config.epochs
    frozen_operations = 2 * layer * (shape.layers - adapted) * frozen_passes
    head = 4 * shape.vocabulary * shape.hidden * ANSWER_SHARE * config.epochs
    return tokens * (adapted_operations + frozen_operations + head)


def estimate_time(
    shape: ModelShape | None,
    config: TrainingConfig,
    size: RunSize,
    earlier: Sequence[RunDuration],
    rate: float | None,
) -> Estimate:
    """Estimate seconds: from `earlier` runs with the same settings, else from `rate`, the measured
    operations per second of a large matrix product on the device.
    """
    if earlier:
        totals = [sum(run) for run in earlier]
        train, evaluate = ([run[part] for run in earlier] for part in (0, 1))
        basis = (
            f"the newest {len(earlier)} runs here with these settings: training {_span(train)}, "
            f"evaluation {_span(evaluate)}"
        )
        return Estimate(lowest=min(totals), highest=max(totals), basis=basis)
    if shape is None:
        return Estimate(basis="no estimate: it needs the files of the base, or an earlier run")
    if rate is None:
        return Estimate(basis="no estimate: it needs PyTorch, or an earlier run")
    work = operations(shape, config, size.tokens)
    slow, fast = EFFICIENCY
    basis = (
        f"training only, of {size.examples} examples with {size.tokens / size.examples:.0f} tokens "
        f"each ({size.basis}), at {slow:.0%} to {fast:.0%} of the {rate / 1e9:.0f} GFLOP/s "
        "measured now; the evaluation and the first start come on top, and the first run here "
        "replaces this by its own durations"
    )
    return Estimate(lowest=work / rate / fast, highest=work / rate / slow, basis=basis)


def _span(seconds: Sequence[float]) -> str:
    low, high = f"{min(seconds):.0f}", f"{max(seconds):.0f}"
    return f"{low} s" if low == high else f"{low} to {high} s"
