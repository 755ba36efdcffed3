"""Cache for the layers below the first adapted one: their output for a row never changes.

Rows recur in training, where a step's examples stay together from epoch to epoch, and in
evaluation, where every candidate is scored on the same sets.
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import MethodType
from typing import Any

import torch

from services.trainer.kernels.packed_attention import RowLayout
from services.trainer.kernels.packing import PackedRow
from services.trainer.machine.memory import FROZEN_CACHE_BYTES


class ActivationCache:
    """Outputs of the last frozen layer, [1, tokens, width], up to `limit` bytes in total.

    A cache for training keeps the first rows: all recur equally often. One for inference drops the
    least recently used rows: the sets of a model change now and then.
    """

    def __init__(self, limit: int, *, for_inference: bool = False) -> None:
        self._limit = limit
        self._for_inference = for_inference
        self._states: OrderedDict[tuple[int, PackedRow], torch.Tensor] = OrderedDict()
        self._bytes = 0

    def get(self, depth: int, row: PackedRow) -> torch.Tensor | None:
        """Return the output of the first `depth` layers for a row, None if it is not stored."""
        state = self._states.get((depth, row))
        if state is not None:
            self._states.move_to_end((depth, row))
        return state

    def put(self, depth: int, row: PackedRow, state: torch.Tensor) -> None:
        """Store an output if there is space for it. Tensors computed in inference mode cannot be
        used in training.
        """
        size = _bytes_of(state)
        if size > self._limit or state.is_inference() != self._for_inference:
            return
        while self._for_inference and self._bytes + size > self._limit:
            _, oldest = self._states.popitem(last=False)
            self._bytes -= _bytes_of(oldest)
        if self._bytes + size <= self._limit:
            self._states[depth, row] = state.detach()
            self._bytes += size


def _bytes_of(state: torch.Tensor) -> int:
    return state.numel() * state.element_size()


@contextmanager
def cache_frozen_layers(
    causal: Any, adapted: int | None, cache: ActivationCache | None = None
) -> Iterator[None]:
    """Within the context, compute the layers below the last `adapted` ones only once per packed
    row. By default, the outputs are kept for one training run.

    Do nothing if all layers are adapted or if the frozen layers are not deterministic.
    """
    layers = getattr(causal.get_decoder(), "layers", ())
    frozen = list(layers)[:-adapted] if adapted else []
    if not frozen or _has_dropout(causal, frozen):
        yield
        return
    lower = _FrozenPart(cache or ActivationCache(FROZEN_CACHE_BYTES), len(frozen))
    for layer in frozen[:-1]:
        vars(layer)["forward"] = MethodType(partial(_skip_if_cached, lower), layer)
    vars(frozen[-1])["forward"] = MethodType(partial(_cached_forward, lower), frozen[-1])
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


@dataclass(frozen=True)
class _FrozenPart:
    """The first `depth` layers of a model, which are frozen, with the cache of their outputs. Rows
    without a layout are not packed; some of these architectures return more than a tensor.
    """

    cache: ActivationCache
    depth: int

    def cached(self, layout: RowLayout | None) -> torch.Tensor | None:
        return None if layout is None else self.cache.get(self.depth, layout.row)

    def keep(self, layout: RowLayout | None, state: torch.Tensor) -> None:
        if layout is not None:
            self.cache.put(self.depth, layout.row, state)


def _skip_if_cached(
    lower: _FrozenPart, layer: Any, state: torch.Tensor, *args: Any, **kwargs: Any
) -> torch.Tensor:
    """Forward pass of a lower frozen layer; skipped if the output of the last one is cached."""
    if lower.cached(kwargs.get("layout")) is not None:
        return state
    output: torch.Tensor = type(layer).forward(layer, state, *args, **kwargs)
    return output


def _cached_forward(
    lower: _FrozenPart, layer: Any, state: torch.Tensor, *args: Any, **kwargs: Any
) -> torch.Tensor:
    """Forward pass of the last frozen layer, through the cache."""
    layout = kwargs.get("layout")
    output = lower.cached(layout)
    if output is None:
        output = type(layer).forward(layer, state, *args, **kwargs)
        lower.keep(layout, output)
    return output
