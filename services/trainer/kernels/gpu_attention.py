"""Attention over a packed row on a GPU, in one kernel call: each prefix is a sequence, and each
suffix is a sequence whose keys begin with those of its prefix.

The kernel is FlashAttention-2 for variable-length sequences (Dao 2023, arXiv:2307.08691), in which
the last query of a sequence sees its last key. It supports 16-bit inputs and fewer key heads than
query heads; other inputs take the path in `packed_attention`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from inspect import signature
from itertools import accumulate
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn.attention.varlen import varlen_attn

from services.trainer.kernels.packing import PrefixGroup

MAX_HEAD_WIDTH = 256
"""Maximum width of a head that the kernel supports."""

CAUSAL: dict[str, Any] = {"window_size": (-1, 0)}
# torch 2.12 and later require the flag for grouped-query attention.
if "enable_gqa" in signature(varlen_attn).parameters:
    CAUSAL["enable_gqa"] = True


@dataclass(frozen=True)
class VarlenLayout:
    """Index tensors that expand a row's keys into those of all sequences.

    `key_positions` are the row positions of the keys of all sequences, one sequence after the
    other. `own_keys` is, for each token of the row, the index of its own key in that list.
    `prefix_copies` holds, for each prefix with suffixes, its slice of the row and the indices of
    its copies in that list, [suffixes x prefix].
    """

    key_positions: torch.Tensor
    own_keys: torch.Tensor
    prefix_copies: tuple[tuple[slice, torch.Tensor], ...]
    query_starts: torch.Tensor
    key_starts: torch.Tensor
    longest_query: int
    longest_key: int


def build_varlen_layout(groups: Sequence[PrefixGroup], device: str) -> VarlenLayout:
    """Build the index tensors for the prefix groups of a row."""
    keys: list[int] = []
    own: list[int] = []
    queries: list[int] = []
    lengths: list[int] = []
    copies: list[tuple[slice, torch.Tensor]] = []

    def add(prefix: range, length: int) -> range:
        """Append a sequence of `length` tokens that continues `prefix`. Return the indices of the
        prefix's copy among the keys.
        """
        copied = range(len(keys), len(keys) + len(prefix))
        row = range(len(own), len(own) + length)
        keys.extend((*prefix, *row))
        own.extend(range(copied.stop, copied.stop + length))
        queries.append(length)
        lengths.append(len(prefix) + length)
        return copied

    for group in groups:
        prefix = range(len(own), len(own) + group.prefix)
        if prefix:
            add(range(0), group.prefix)
        copied_keys = [key for length in group.suffixes if length for key in add(prefix, length)]
        if copied_keys:
            copies.append(
                (slice(prefix.start, prefix.stop), torch.tensor(copied_keys, device=device))
            )
    return VarlenLayout(
        key_positions=torch.tensor(keys, device=device),
        own_keys=torch.tensor(own, device=device),
        prefix_copies=tuple(copies),
        query_starts=torch.tensor((0, *accumulate(queries)), dtype=torch.int32, device=device),
        key_starts=torch.tensor((0, *accumulate(lengths)), dtype=torch.int32, device=device),
        longest_query=max(queries),
        longest_key=max(lengths),
    )


@cache
def _has_kernel(device: int) -> bool:
    """Return True if the device has FlashAttention-2: Ampere or later."""
    return torch.cuda.get_device_capability(device) >= (8, 0)


def can_attend(query: torch.Tensor, dropout: float) -> bool:
    """Return True if the kernel supports the query's device, precision and head width."""
    is_16_bit = query.dtype in (torch.bfloat16, torch.float16)
    fits_kernel = query.shape[-1] <= MAX_HEAD_WIDTH and query.shape[-1] % 8 == 0
    return (
        query.device.type == "cuda"
        and is_16_bit
        and fits_kernel
        and not dropout
        and _has_kernel(query.device.index)
    )


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: VarlenLayout,
    scaling: float | None,
) -> torch.Tensor:
    """Compute attention on [tokens, heads, width]; keys and values may have fewer heads."""
    if layout.prefix_copies:
        key, value = (_GatherKeys.apply(each, layout) for each in (key, value))
    untyped: Any = varlen_attn(
        query,
        key,
        value,
        layout.query_starts,
        layout.key_starts,
        layout.longest_query,
        layout.longest_key,
        scale=scaling,
        **CAUSAL,
    )
    output: torch.Tensor = untyped
    return output


class _GatherKeys(torch.autograd.Function):
    """Gather the keys of all sequences from those of the row.

    The gradient sums copies in fp32 and in a fixed order. PyTorch's own backward pass of
    `index_select` would add them in 16 bits and in any order.
    """

    @staticmethod
    def forward(ctx: Any, row: torch.Tensor, layout: VarlenLayout) -> torch.Tensor:
        ctx.layout = layout
        return row.index_select(0, layout.key_positions)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        total = gradient.index_select(0, ctx.layout.own_keys)
        for prefix, copies in ctx.layout.prefix_copies:
            length = prefix.stop - prefix.start
            total[prefix] += (
                gradient.index_select(0, copies)
                .view(-1, length, *gradient.shape[1:])
                .sum(0, dtype=torch.float32)
            )
        return total, None
