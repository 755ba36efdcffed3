"""Attention within the examples of a packed row, given to models of the transformers library by its public AttentionInterface."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from services.trainer.packing import Family

NAME = "ratchet_packed"

FAMILIES = frozenset({"gemma", "granite", "helium", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "smollm3"})
"""Architectures (`model_type`) whose attention is the plain one and is asked for with what the forward pass is given; a test holds each
to what it computes for one example at a time."""


def can_pack(causal: Any) -> bool:
    """Whether each token of a model attends to every token before it, by an attention that can be replaced."""
    config = causal.config
    replaceable = config.model_type in FAMILIES and config._attn_implementation in ("sdpa", NAME)
    whole = getattr(config, "sliding_window", None) is None and set(getattr(config, "layer_types", None) or ()) <= {"full_attention"}
    return replaceable and whole


def wear(causal: Any) -> None:
    """Have a model ask for the packed attention, which is SDPA for whoever gives it no families. It stays: gradient
    checkpointing asks for it again during the backward pass."""
    if causal.config._attn_implementation != NAME:
        causal.set_attn_implementation(NAME)


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    families: Sequence[Family] | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """In: [1, heads, tokens, width] each, keys and values with fewer heads; out: [1, tokens, heads, width]."""
    if families is None:
        plain: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others
        )
        return plain
    repeats = query.shape[1] // key.shape[1]
    states = [query, repeat_kv(key, repeats), repeat_kv(value, repeats)]
    if query.device.type == "cpu":
        # The CPU's backward pass of short sequences is slower in bf16 than in fp32.
        states = [state.float() if state.element_size() < 4 else state for state in states]
    runs = [_runs(family) for family in families]
    lengths = [length for family, own in zip(families, runs, strict=True) for length in (family.prefix, *(n * each for n, each in own))]
    # One split and one concatenation: the gradient of a slice is as large as what it was taken from.
    pieces = zip(*(torch.split(state, lengths, dim=2) for state in states), strict=True)
    found: list[torch.Tensor] = []
    for family, own in zip(families, runs, strict=True):
        prefix_query, prefix_key, prefix_value = next(pieces)
        if family.prefix:
            found.append(_causal(prefix_query, prefix_key, prefix_value, dropout, scaling).transpose(1, 2))
        for count, length in own:
            own_query, own_key, own_value = (_apart(piece, count, length) for piece in next(pieces))
            if family.prefix:
                own_key, own_value = _after(prefix_key, own_key), _after(prefix_value, own_value)
            if length:
                found.append(_causal(own_query, own_key, own_value, dropout, scaling).transpose(1, 2).flatten(0, 1)[None])
    return torch.cat(found, dim=1).to(query.dtype), None


def _runs(family: Family) -> list[tuple[int, int]]:
    """How many suffixes of one length follow each other, and that length."""
    return [(len(list(alike)), length) for length, alike in groupby(family.suffixes)]


def _apart(piece: torch.Tensor, count: int, length: int) -> torch.Tensor:
    """[1, heads, count x length, width] as [count, heads, length, width]."""
    return piece.reshape(piece.shape[1], count, length, piece.shape[3]).transpose(0, 1)


def _after(prefix: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """What stands before each of several suffixes, and then the suffix."""
    return torch.cat([prefix.expand(len(own), -1, -1, -1), own], dim=2)


def _causal(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, dropout: float, scaling: float | None) -> torch.Tensor:
    """Attention in which the last query sees every key, the one before it all but the last, and so on."""
    length, seen = query.shape[2], key.shape[2]
    if length == seen:
        return scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True, scale=scaling)
    bias: Any = causal_lower_right(length, seen)
    return scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout, scale=scaling)


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
