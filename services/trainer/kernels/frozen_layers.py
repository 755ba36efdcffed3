"""Cache for the layers below the first adapted one: during a run their output for a row is the same
in every epoch.

A step's examples stay together from epoch to epoch, so each row recurs unchanged.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import MethodType
from typing import Any

import torch

from services.trainer.kernels.packed_attention import RowLayout
from services.trainer.kernels.packing import PackedRow
from services.trainer.machine.memory import FROZEN_CACHE_BYTES


@contextmanager
def cache_frozen_layers(causal: Any, adapted: int | None) -> Iterator[None]:
    """Within the context, compute the layers below the last `adapted` ones only once per packed
    row.

    Do nothing if all layers are adapted or if the frozen layers are not deterministic.
    """
    layers = getattr(causal.get_decoder(), "layers", ())
    frozen = list(layers)[:-adapted] if adapted else []
    if not frozen or _has_dropout(causal, frozen):
        yield
        return
    cache = _ActivationCache()
    for layer in frozen[:-1]:
        vars(layer)["forward"] = MethodType(partial(_skip_if_cached, cache), layer)
    vars(frozen[-1])["forward"] = MethodType(partial(_cached_forward, cache), frozen[-1])
    try:
        yield
    finally:
        for layer in frozen:
            del vars(layer)["forward"]


def _has_dropout(causal: Any, layers: list[Any]) -> bool:
    """Return True if the base's own layers use dropout during training."""
    dropouts = (
        module.p
        for layer in layers
        for module in layer.modules()
        if isinstance(module, torch.nn.Dropout)
    )
    return bool(getattr(causal.config, "attention_dropout", 0.0)) or any(dropouts)


class _ActivationCache:
    """Output of the last frozen layer by row, [1, tokens, width], up to `FROZEN_CACHE_BYTES`."""

    def __init__(self) -> None:
        self._states: dict[PackedRow, torch.Tensor] = {}
        self._bytes = 0

    def get(self, layout: RowLayout | None) -> torch.Tensor | None:
        return None if layout is None else self._states.get(layout.row)

    def put(self, layout: RowLayout | None, state: torch.Tensor) -> None:
        """Store an output unless the cache is full. Tensors computed in inference mode are not
        stored: they cannot be used in training.
        """
        if layout is None:
            return  # not packed; some of these architectures return more than a tensor
        size = state.numel() * state.element_size()
        if not state.is_inference() and self._bytes + size <= FROZEN_CACHE_BYTES:
            self._states[layout.row] = state.detach()
            self._bytes += size


def _skip_if_cached(
    cache: _ActivationCache, layer: Any, state: torch.Tensor, *args: Any, **kwargs: Any
) -> torch.Tensor:
    """Forward pass of a lower frozen layer; skipped if the output of the last one is cached."""
    if cache.get(kwargs.get("layout")) is not None:
        return state
    output: torch.Tensor = type(layer).forward(layer, state, *args, **kwargs)
    return output


def _cached_forward(
    cache: _ActivationCache, layer: Any, state: torch.Tensor, *args: Any, **kwargs: Any
) -> torch.Tensor:
    """Forward pass of the last frozen layer, through the cache."""
    layout = kwargs.get("layout")
    output = cache.get(layout)
    if output is None:
        output = type(layer).forward(layer, state, *args, **kwargs)
        cache.put(layout, output)
    return output
