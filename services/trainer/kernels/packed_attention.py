"""Attention within the examples of a packed row, registered with transformers through its public
AttentionInterface.
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

from services.trainer.kernels import cpu_attention, gpu_attention
from services.trainer.kernels.cpu_attention import Block
from services.trainer.kernels.gpu_attention import VarlenLayout
from services.trainer.kernels.packing import PackedRow, PrefixGroup, supports_packing

ATTENTION_NAME = "ratchet_packed"


def can_pack(causal: Any) -> bool:
    """Return True if the model can compute examples in one row: its architecture supports packing
    and its attention can be replaced.
    """
    config = causal.config
    supported = supports_packing(
        config.model_type,
        getattr(config, "sliding_window", None),
        getattr(config, "layer_types", None),
    )
    return supported and config._attn_implementation in ("sdpa", ATTENTION_NAME)


def enable_packed_attention(causal: Any) -> None:
    """Make a model use packed attention, which falls back to SDPA without a row layout.

    The setting is permanent: gradient checkpointing needs it again during the backward pass.
    """
    if causal.config._attn_implementation != ATTENTION_NAME:
        causal.set_attn_implementation(ATTENTION_NAME)


@dataclass(frozen=True)
class RowLayout:
    """The prefix groups of a row and derived data for a device, computed once for all layers."""

    row: PackedRow
    device: str

    @property
    def prefix_groups(self) -> Sequence[PrefixGroup]:
        return self.row.prefix_groups

    @cached_property
    def suffix_runs(self) -> list[list[tuple[int, int]]]:
        """(count, length) of consecutive suffixes of equal length, for each prefix group."""
        return [
            [(len(list(equal)), length) for length, equal in groupby(group.suffixes)]
            for group in self.prefix_groups
        ]

    @cached_property
    def piece_lengths(self) -> list[int]:
        """Lengths of the pieces of a row: each prefix and each run of suffixes."""
        grouped_runs = zip(self.prefix_groups, self.suffix_runs, strict=True)
        return [
            length
            for group, runs in grouped_runs
            for length in (group.prefix, *(count * suffix for count, suffix in runs))
        ]

    @cached_property
    def blocks(self) -> list[Block]:
        return cpu_attention.split_into_blocks(self.prefix_groups)

    @cached_property
    def varlen(self) -> VarlenLayout:
        return gpu_attention.build_varlen_layout(self.prefix_groups, self.device)


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    layout: RowLayout | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Compute attention from [1, heads, tokens, width] to [1, tokens, heads, width].

    Keys and values may have fewer heads than queries.
    """
    if layout is None:
        plain: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return plain
    if cpu_attention.can_attend(query, layout.blocks, dropout):
        return cpu_attention.attend(query, key, value, layout.blocks, scaling), None
    states = [_to_compute_dtype(state) for state in (query, key, value)]
    if gpu_attention.can_attend(states[0], dropout):
        queries, keys, values = (state[0].transpose(0, 1) for state in states)
        return gpu_attention.attend(queries, keys, values, layout.varlen, scaling)[None].to(
            query.dtype
        ), None
    repeats = query.shape[1] // key.shape[1]
    states = [states[0], *(repeat_kv(state, repeats) for state in states[1:])]
    # One split and one concatenation: the gradient of a slice is as large as the sliced tensor.
    pieces = zip(
        *(torch.split(state, layout.piece_lengths, dim=2) for state in states), strict=True
    )
    outputs: list[torch.Tensor] = []
    for group, runs in zip(layout.prefix_groups, layout.suffix_runs, strict=True):
        prefix_query, prefix_key, prefix_value = next(pieces)
        if group.prefix:
            outputs.append(
                _causal_attention(
                    prefix_query, prefix_key, prefix_value, dropout, scaling
                ).transpose(1, 2)
            )
        for count, length in runs:
            own_query, own_key, own_value = (
                _split_suffixes(piece, count, length) for piece in next(pieces)
            )
            if group.prefix:
                own_key, own_value = (
                    _prepend_prefix(prefix_key, own_key),
                    _prepend_prefix(prefix_value, own_value),
                )
            if length:
                outputs.append(
                    _causal_attention(own_query, own_key, own_value, dropout, scaling)
                    .transpose(1, 2)
                    .flatten(0, 1)[None]
                )
    return torch.cat(outputs, dim=1).to(query.dtype), None


def _to_compute_dtype(state: torch.Tensor) -> torch.Tensor:
    """Cast to the precision of attention: the autocast precision under autocast; on a CPU at least
    fp32, since its backward pass for short sequences is slower in bf16.
    """
    if torch.is_autocast_enabled(state.device.type):
        return state.to(torch.get_autocast_dtype(state.device.type))
    return state.float() if state.device.type == "cpu" and state.element_size() < 4 else state


def _split_suffixes(piece: torch.Tensor, count: int, length: int) -> torch.Tensor:
    """View [1, heads, count x length, width] as [count, heads, length, width]."""
    return piece.reshape(piece.shape[1], count, length, piece.shape[3]).transpose(0, 1)


def _prepend_prefix(prefix: torch.Tensor, suffixes: torch.Tensor) -> torch.Tensor:
    """Concatenate the prefix with each of several suffixes."""
    return torch.cat([prefix.expand(len(suffixes), -1, -1, -1), suffixes], dim=2)


def _causal_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    dropout: float,
    scaling: float | None,
) -> torch.Tensor:
    """Attention in which the last query sees every key, the query before it all but the last key,
    and so on.
    """
    length, key_length = query.shape[2], key.shape[2]
    if length == key_length:
        return scaled_dot_product_attention(
            query, key, value, dropout_p=dropout, is_causal=True, scale=scaling
        )
    bias: Any = causal_lower_right(length, key_length)
    return scaled_dot_product_attention(
        query, key, value, attn_mask=bias, dropout_p=dropout, scale=scaling
    )


AttentionInterface.register(ATTENTION_NAME, _attention)
AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)
