"""Choice of the modules that an adapter changes, for PEFT."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from services.trainer.errors import RunFailed
from shared.config.training import TrainingConfig
from shared.storage.base_projections import layer_counts, match_targets

_IN_LAYER = re.compile(r"(.*\b(?:layers|blocks|h))\.(\d+)\.(.+)")


@dataclass(frozen=True, slots=True)
class AdaptedModules:
    """PEFT's settings for a base: names of modules in the layers with these indices, or a regular
    expression for whole names, where names alone would reach modules of another kind.
    """

    target_modules: list[str] | str
    layers_to_transform: list[int] | None


def adapted_modules(model: Any, config: TrainingConfig) -> AdaptedModules:
    """Find the modules that a configuration names in a base. Raises RunFailed if a target names
    none, or if the base has fewer layers.
    """
    language = model.config.get_text_config()
    total = language.num_hidden_layers
    if config.layers is not None and config.layers > total:
        raise RunFailed(
            f"the lane adapts {config.layers} layers, but the base has {total}",
            f"set the lane's layers to at most {total}",
        )
    layers = range(total - (config.layers or total), total)
    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    experts = [name for name, weight in model.named_parameters() if weight.ndim == 3]
    matched = match_targets([*linear, *experts], language.model_type, config.targets, layers)
    if absent := [target for target, found in matched.items() if not found]:
        present = ", ".join(layer_counts(linear)) or "no projection that can be adapted"
        raise RunFailed(
            f"the targets {', '.join(absent)} name no projection in "
            f"{'the base' if config.layers is None else f'the last {config.layers} layers'}, whose "
            f"architecture is {language.model_type}; it has {present}",
            "change the lane's targets; experts of a mixture are not adapted",
        )
    chosen = {name for found in matched.values() for name in found}
    if chosen == set(_reached_by_names(model, config.targets, layers)):
        return AdaptedModules(list(config.targets), None if config.layers is None else list(layers))
    return AdaptedModules(_expression(chosen), None)


def _reached_by_names(model: Any, targets: Sequence[str], layers: range) -> Iterator[str]:
    """Yield the modules that PEFT adapts for these names: it counts layers in every tower."""
    ends = tuple(f".{target}" for target in targets)
    for name, _ in model.named_modules():
        place = _IN_LAYER.fullmatch(name)
        if name.endswith(ends) and (place is None or int(place[2]) in layers):
            yield name


def _expression(names: set[str]) -> str:
    """Return a regular expression for exactly these modules of a base."""
    places = [place.groups() for name in names if (place := _IN_LAYER.fullmatch(name))]
    towers, numbers, ends = (sorted(set(part)) for part in zip(*places, strict=True))
    numbers.sort(key=int)
    return f"(?:{_any(towers)})\\.(?:{_any(numbers)})\\.(?:{_any(ends)})"


def _any(texts: Sequence[str]) -> str:
    return "|".join(map(re.escape, texts))
