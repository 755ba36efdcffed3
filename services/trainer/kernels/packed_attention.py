"""Attention within the examples of a packed row, given to models of the transformers library by its
public AttentionInterface.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import torch
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from services.trainer.kernels import cpu_attention as short_attention
from services.trainer.kernels import gpu_attention as sequences
from services.trainer.kernels.cpu_attention import Block
from services.trainer.kernels.gpu_attention import VarlenLayout
from services.trainer.kernels.packing import PackedRow, PrefixGroup, supports_packing

ATTENTION_NAME = "ratchet_packed"


def can_pack(causal: Any) -> bool:
    """Whether a model computes examples in one row: it is of a kind that does, and its attention
    can be replaced.
    """
    config = causal.config
    whole = supports_packing(
        config.model_type,
        getattr(config, "sliding_window", None),
        getattr(config, "layer_types", None),
    )
    return whole and config._attn_implementation in ("sdpa", ATTENTION_NAME)


def enable_packed_attention(causal: Any) -> None:
    """Have a model ask for the packed attention, which is SDPA for whoever gives it no families. It
    stays: gradient checkpointing asks for it again during the backward pass.
    """
    if causal.config._attn_implementation != ATTENTION_NAME:
        causal.set_attn_implementation(ATTENTION_NAME)


@dataclass(frozen=True)
class RowLayout:
    """The families of a row, and what computing them on a device takes, made once for all layers."""

    row: PackedRow
    device: str

    @property
    def prefix_groups(self) -> Sequence[PrefixGroup]:
        return self.row.prefix_groups

    @cached_property
    def suffix_runs(self) -> list[list[tuple[int, int]]]:
        """Of each family, how many suffixes of one length follow each other, and that length."""
        return [
            [(len(list(alike)), length) for length, alike in groupby(family.suffixes)]
            for family in self.prefix_groups
        ]

    @cached_property
    def piece_lengths(self) -> list[int]:
        """The lengths of what a row is cut into: each prefix, and each run."""
        whole = zip(self.prefix_groups, self.suffix_runs, strict=True)
        return [
            length
            for family, own in whole
            for length in (family.prefix, *(count * each for count, each in own))
        ]

    @cached_property
    def blocks(self) -> list[Block]:
        return short_attention.split_into_blocks(self.prefix_groups)

    @cached_property
    def varlen(self) -> VarlenLayout:
        return sequences.build_varlen_layout(self.prefix_groups, self.device)


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    layout: RowLayout | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """In: [1, heads, tokens, width] each, keys and values with fewer heads; out: [1, tokens, heads,
    width].
    """
    if layout is None:
        plain: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others
        )
        return plain
    if short_attention.can_attend(query, layout.blocks, dropout):
        return short_attention.attend(query, key, value, layout.blocks, scaling), None
    states = [_to_compute_dtype(state) for state in (query, key, value)]
    if sequences.can_attend(states[0], dropout):
        queries, keys, values = (state[0].transpose(0, 1) for state in states)
        return sequences.attend(queries, keys, values, layout.varlen, scaling)[None].to(
            query.dtype
        ), None
    repeats = query.shape[1] // key.shape[1]
    states = [states[0], *(repeat_kv(state, repeats) for state in states[1:])]
    # One split and one concatenation: the gradient of a slice is as large as what it was taken
    # from.
    pieces = zip(
        *(torch.split(state, layout.piece_lengths, dim=2) for state in states), strict=True
    )
    found: list[torch.Tensor] = []
    for family, own in zip(layout.prefix_groups, layout.suffix_runs, strict=True):
        prefix_query, prefix_key, prefix_value = next(pieces)
        if family.prefix:
            found.append(
                _causal_attention(
                    prefix_query, prefix_key, prefix_value, dropout, scaling
                ).transpose(1, 2)
            )
        for count, length in own:
            own_query, own_key, own_value = (
                _split_suffixes(piece, count, length) for piece in next(pieces)
            )
            if family.prefix:
                own_key, own_value = (
                    _prepend_prefix(prefix_key, own_key),
                    _prepend_prefix(prefix_value, own_value),
                )
            if length:
                found.append(
                    _causal_attention(own_query, own_key, own_value, dropout, scaling)
                    .transpose(1, 2)
                    .flatten(0, 1)[None]
                )
    return torch.cat(found, dim=1).to(query.dtype), None


def _to_compute_dtype(state: torch.Tensor) -> torch.Tensor:
    """In the precision in which attention is computed: that of autocast where it is on; on a CPU
    fp32 at least, since its backward pass of short sequences is slower in bf16.
    """
    if torch.is_autocast_enabled(state.device.type):
        return state.to(torch.get_autocast_dtype(state.device.type))
    return state.float() if state.device.type == "cpu" and state.element_size() < 4 else state


def _split_suffixes(piece: torch.Tensor, count: int, length: int) -> torch.Tensor:
    """[1, heads, count x length, width] as [count, heads, length, width]."""
    return piece.reshape(piece.shape[1], count, length, piece.shape[3]).transpose(0, 1)


def _prepend_prefix(prefix: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """What stands before each of several suffixes, and then the suffix."""
    return torch.cat([prefix.expand(len(own), -1, -1, -1), own], dim=2)


def _causal_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    dropout: float,
    scaling: float | None,
) -> torch.Tensor:
    """Attention in which the last query sees every key, the one before it all but the last, and so
    on.
    """
    length, seen = query.shape[2], key.shape[2]
    if length == seen:
        return scaled_dot_product_attention(
            query, key, value, dropout_p=dropout, is_causal=True, scale=scaling
        )
    bias: Any = causal_lower_right(length, seen)
    return scaled_dot_product_attention(
        query, key, value, attn_mask=bias, dropout_p=dropout, scale=scaling
    )


AttentionInterface.register(ATTENTION_NAME, _attention)
AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)
