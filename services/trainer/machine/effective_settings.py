"""Settings of a run: the model file's, and for what it does not name values that suit the base and
the device, each with its reason. Pure.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from services.trainer.machine.memory import (
    UNLIMITED,
    BatchTokens,
    ModelShape,
    estimate_needs,
    format_bytes,
)
from shared.config.training import TrainingConfig
from shared.events.hyperparameters import Configuration


class LearningRate(NamedTuple):
    """A learning rate for bases of fewer parameters than `parameters`."""

    parameters: float
    rate: float
    source: str


LEARNING_RATES = (
    LearningRate(300e6, 3e-3, "measured with a base of 135 million parameters"),
    LearningRate(3e9, 1e-3, "the larger the base, the lower"),
    LearningRate(20e9, 2e-4, "as in QLoRA, arXiv:2305.14314, table 9"),
    LearningRate(float("inf"), 1e-4, "as in QLoRA, arXiv:2305.14314, table 9"),
)
LAYER_SHARE = 3
"""Of this many layers, the last one is adapted."""

ADAPTER_SHAPE = ("rank", "alpha", "targets", "layers")
"""Settings that a run cannot change in an adapter."""

_CONTINUED = "as in the adapter that the run continues"
IN_MODEL_FILE = "set in the model file"
_REASONS: Mapping[str, str] = {
    "rank": "enough for the answers of one task",
    "alpha": "a scale of 2 with the default rank",
    "epochs": "a batch of 50 is learned within three passes",
    "replay": "examples of earlier batches hold back forgetting",
    "dpo_pairs": "corrections are learned as examples; with fewer pairs than this, DPO is not "
    "added, which would more than double the time",
    "kto_negatives": "fewer disliked answers are too weak a signal",
    "max_tokens": "longer examples are cut",
    "quantisation": "the base is trained in the precision of the device",
}
SHOWN = (
    "targets",
    "layers",
    "rank",
    "alpha",
    "learning_rate",
    "epochs",
    "batch_size",
    "replay",
    "dpo_pairs",
    "kto_negatives",
    "gradient_checkpointing",
    "precision",
    "quantisation",
    "max_tokens",
)


@dataclass(frozen=True, slots=True)
class Device:
    """The device that trains: its best precision, and the maximum memory of a run in bytes."""

    name: str
    precision: str
    memory: int


@dataclass(frozen=True, slots=True)
class EffectiveSettings:
    """A run's configuration, and the reason of each value that is worth showing."""

    config: TrainingConfig
    reasons: Mapping[str, str]


def effective_settings(
    declared: TrainingConfig,
    shape: ModelShape | None,
    device: Device | None,
    parent: Configuration | None = None,
    *,
    has_master: bool = False,
) -> EffectiveSettings:
    """Choose the settings that `declared` leaves to Ratchet.

    Settings that it names are kept. A run that continues an adapter keeps its shape: that of
    `parent`, the configuration of the run that made it. For a model that `has_master`, a lane
    `master`, this wins over a shape that `declared` names: the adapter may be of that lane, and
    with another shape the run could not continue it. Without `shape`, a base of unknown
    dimensions, or without `device`, what depends on it keeps the lane's default.
    """
    chosen = dict(_fitted_to_base(declared, shape)) if shape else {}
    if parent is not None and declared.lineage == "continue":
        chosen |= {
            name: _Chosen(getattr(parent, name), _CONTINUED)
            for name in ADAPTER_SHAPE
            if has_master or name not in declared.named
        }
    config = _with_chosen(declared, chosen)
    if shape and device:
        in_memory = _fitted_to_memory(config, declared.named, shape, device)
        config = _with_chosen(config, in_memory)
        chosen |= in_memory
    reasons = {name: _reason(name, declared, chosen, shape, device) for name in SHOWN}
    return EffectiveSettings(config, reasons)


class _Chosen(NamedTuple):
    value: Any
    reason: str


def _with_chosen(config: TrainingConfig, chosen: Mapping[str, _Chosen]) -> TrainingConfig:
    return config.model_copy(update={name: value for name, (value, _) in chosen.items()})


def _fitted_to_base(declared: TrainingConfig, shape: ModelShape) -> Iterator[tuple[str, _Chosen]]:
    named, layers = declared.named, declared.layers
    if declared.lane == "adaptive":
        if "layers" not in named and shape.layers >= LAYER_SHARE:
            layers = shape.layers // LAYER_SHARE
            reason = f"the last of {shape.layers}: a step is cheaper, and less is forgotten"
            yield "layers", _Chosen(layers, reason)
        if "learning_rate" not in named:
            limit = next(each for each in LEARNING_RATES if shape.parameters < each.parameters)
            reason = f"for a base of {_count(shape.parameters)} parameters: {limit.source}"
            yield "learning_rate", _Chosen(limit.rate, reason)
    if "targets" not in named:
        matched = shape.matched(declared.targets, layers)
        present = tuple(target for target in declared.targets if matched[target])
        if present and present != declared.targets:
            yield "targets", _Chosen(present, "the projections of its kind that the base has")


def _fitted_to_memory(
    config: TrainingConfig, named: frozenset[str], shape: ModelShape, device: Device
) -> dict[str, _Chosen]:
    """Return the changes with which the longest batch fits: none if it fits, or if no change that
    keeps the result makes it fit.
    """

    def fits(changed: TrainingConfig) -> bool:
        batch = BatchTokens.largest((), changed.batch_size, changed.max_tokens)
        return estimate_needs(shape, changed, device.precision, batch).total <= device.memory

    if fits(config):
        return {}
    reason = f"the longest batch would not fit into {format_bytes(device.memory)} otherwise"
    sizes = [size for size in range(config.batch_size - 1, 0, -1) if 8 % size == 0 or size > 8]
    changes: list[dict[str, Any]] = [{"gradient_checkpointing": True}]
    changes += [{"batch_size": size, "gradient_checkpointing": True} for size in sizes]
    if "gradient_checkpointing" in named:
        changes = [{"batch_size": size} for size in sizes]
    for change in changes:
        if not set(change) & named and fits(config.model_copy(update=change)):
            return {name: _Chosen(value, reason) for name, value in change.items()}
    return {}


def _reason(
    name: str,
    declared: TrainingConfig,
    chosen: Mapping[str, _Chosen],
    shape: ModelShape | None,
    device: Device | None,
) -> str:
    if name == "precision" and declared.precision == "auto" and device:
        return f"{device.precision}, the fastest that the device ({device.name}) computes well"
    if name in chosen:
        return chosen[name].reason
    if name in declared.named:
        return IN_MODEL_FILE
    memory = "" if device is None or device.memory >= UNLIMITED else format_bytes(device.memory)
    match name:
        case "layers" | "learning_rate" if shape is None and declared.lane == "adaptive":
            return "default of the lane, because the base's dimensions are unknown"
        case "targets":
            return f"default of the lane {declared.lane}"
        case "batch_size":
            return "small batches take more steps, and learn more of few examples"
        case "gradient_checkpointing" if declared.gradient_checkpointing:
            return "on by default with nf4"
        case "gradient_checkpointing":
            return f"not needed: the longest batch fits into {memory}" if memory else "not needed"
    if declared.lane == "adaptive":
        return _REASONS.get(name, "default of the lane adaptive")
    return f"default of the lane {declared.lane}"


def _count(parameters: int) -> str:
    return (
        f"{parameters / 1e9:.1f} billion"
        if parameters >= 1e9
        else f"{parameters / 1e6:.0f} million"
    )
