"""The layers below the first adapted one, computed once for a row: while a run trains, what they
make of it is the same in every epoch.

A step's examples stay together from epoch to epoch, so that their row comes again as it was.
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
    """For the length of a block, have the layers below the last `adapted` ones compute a packed row
    once. Nothing changes where all are adapted, or where what is below is not the same every time.
    """
    layers = getattr(causal.get_decoder(), "layers", ())
    below = list(layers)[:-adapted] if adapted else []
    if not below or _has_dropout(causal, below):
        yield
        return
    memory = _ActivationCache()
    for layer in below[:-1]:
        vars(layer)["forward"] = MethodType(partial(_skip_if_cached, memory), layer)
    vars(below[-1])["forward"] = MethodType(partial(_cached_forward, memory), below[-1])
    try:
        yield
    finally:
        for layer in below:
            del vars(layer)["forward"]


def _has_dropout(causal: Any, layers: list[Any]) -> bool:
    """Whether the base's own layers drop something while they train."""
    dropouts = (
        module.p
        for layer in layers
        for module in layer.modules()
        if isinstance(module, torch.nn.Dropout)
    )
    return bool(getattr(causal.config, "attention_dropout", 0.0)) or any(dropouts)


class _ActivationCache:
    """What comes out below, [1, tokens, width], by row, as long as there is room."""

    def __init__(self) -> None:
        self._states: dict[PackedRow, torch.Tensor] = {}
        self._bytes = 0

    def get(self, layout: RowLayout | None) -> torch.Tensor | None:
        return None if layout is None else self._states.get(layout.row)

    def put(self, layout: RowLayout | None, state: torch.Tensor) -> None:
        """What was computed in inference mode cannot be trained on."""
        size = state.numel() * state.element_size()
        if (
            layout is not None
            and not state.is_inference()
            and self._bytes + size <= FROZEN_CACHE_BYTES
        ):
            self._states[layout.row] = state.detach()
            self._bytes += size


def _skip_if_cached(
    memory: _ActivationCache, layer: Any, state: torch.Tensor, *others: Any, **more: Any
) -> torch.Tensor:
    """A layer that rests when what it is on the way to is known."""
    if memory.get(more.get("layout")) is not None:
        return state
    found: torch.Tensor = type(layer).forward(layer, state, *others, **more)
    return found


def _cached_forward(
    memory: _ActivationCache, layer: Any, state: torch.Tensor, *others: Any, **more: Any
) -> torch.Tensor:
    """The last layer below."""
    layout = more.get("layout")
    known = memory.get(layout)
    if known is None:
        known = type(layer).forward(layer, state, *others, **more)
        memory.put(layout, known)
    return known
