"""Attention of a packed row on a GPU, in one call: each prefix is a sequence, and each suffix is
one whose keys begin with its prefix's.

The kernel is that of FlashAttention-2 for sequences of varied length (Dao 2023, arXiv:2307.08691),
in which the last query of a sequence sees its last key. It takes 16 bits and keys with fewer heads;
whatever else there is goes another way.
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
"""Numbers of a head, at most."""

CAUSAL: dict[str, Any] = {"window_size": (-1, 0)}
if "enable_gqa" in signature(varlen_attn).parameters:  # before torch 2.12 it need not be asked for
    CAUSAL["enable_gqa"] = True


@dataclass(frozen=True)
class VarlenLayout:
    """`keys` are the places in the row of the keys of all sequences, one sequence after the other.
    `own` is, for each token of the row, where among these it stands in its own sequence. `copies`
    are the places in the row of each prefix that others go on from, and where among the keys its
    copies are, [suffixes x prefix].
    """

    key_positions: torch.Tensor
    own_keys: torch.Tensor
    prefix_copies: tuple[tuple[slice, torch.Tensor], ...]
    query_starts: torch.Tensor
    key_starts: torch.Tensor
    longest_query: int
    longest_key: int


def build_varlen_layout(families: Sequence[PrefixGroup], device: str) -> VarlenLayout:
    keys: list[int] = []
    own: list[int] = []
    queries: list[int] = []
    lengths: list[int] = []
    copies: list[tuple[slice, torch.Tensor]] = []

    def add(prefix: range, length: int) -> range:
        """One more sequence: its keys are those of a prefix, and as many of its own. Where the
        prefix's copy is.
        """
        copied = range(len(keys), len(keys) + len(prefix))
        row = range(len(own), len(own) + length)
        keys.extend((*prefix, *row))
        own.extend(range(copied.stop, copied.stop + length))
        queries.append(length)
        lengths.append(len(prefix) + length)
        return copied

    for family in families:
        prefix = range(len(own), len(own) + family.prefix)
        if prefix:
            add(range(0), family.prefix)
        places = [place for length in family.suffixes if length for place in add(prefix, length)]
        if places:
            copies.append((slice(prefix.start, prefix.stop), torch.tensor(places, device=device)))
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
    """FlashAttention-2 needs an Ampere or a later one."""
    return torch.cuda.get_device_capability(device) >= (8, 0)


def can_attend(query: torch.Tensor, dropout: float) -> bool:
    """Whether the kernel takes what is asked of it."""
    halved = query.dtype in (torch.bfloat16, torch.float16)
    fits = query.shape[-1] <= MAX_HEAD_WIDTH and query.shape[-1] % 8 == 0
    return (
        query.device.type == "cuda"
        and halved
        and fits
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
    """[tokens, heads, width] each, keys and values with fewer heads, to [tokens, heads, width]."""
    if layout.prefix_copies:
        key, value = (_GatherKeys.apply(each, layout) for each in (key, value))
    found: Any = varlen_attn(
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
    answered: torch.Tensor = found
    return answered


class _GatherKeys(torch.autograd.Function):
    """The keys of all sequences from those of the row. What PyTorch has for the way back adds one
    to the other in 16 bits, in any order.
    """

    @staticmethod
    def forward(ctx: Any, row: torch.Tensor, sequences: VarlenLayout) -> torch.Tensor:
        ctx.sequences = sequences
        return row.index_select(0, sequences.key_positions)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        found = gradient.index_select(0, ctx.sequences.own)
        for places, copies in ctx.sequences.copies:
            length = places.stop - places.start
            found[places] += (
                gradient.index_select(0, copies)
                .view(-1, length, *gradient.shape[1:])
                .sum(0, dtype=torch.float32)
            )
        return found, None
