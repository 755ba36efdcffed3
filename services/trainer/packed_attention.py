"""Attention within the examples of a packed row, given to models of the transformers library by its public AttentionInterface."""

from collections.abc import Sequence
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
    lengths = [length for family in families for length in (family.prefix, *family.suffixes)]
    # One split and one concatenation: the gradient of a slice is as large as what it was taken from.
    pieces = zip(*(tensor.split(lengths, dim=2) for tensor in (query, repeat_kv(key, repeats), repeat_kv(value, repeats))), strict=True)
    found: list[torch.Tensor] = []
    for family in families:
        prefix_query, *prefix = next(pieces)
        if family.prefix:
            found.append(scaled_dot_product_attention(prefix_query, *prefix, dropout_p=dropout, is_causal=True, scale=scaling))
        for length in family.suffixes:
            own_query, *own = next(pieces)
            if length and family.prefix:
                keys, values = (torch.cat(pair, dim=2) for pair in zip(prefix, own, strict=True))
                bias: Any = causal_lower_right(length, family.prefix + length)
                found.append(scaled_dot_product_attention(own_query, keys, values, attn_mask=bias, dropout_p=dropout, scale=scaling))
            elif length:
                found.append(scaled_dot_product_attention(own_query, *own, dropout_p=dropout, is_causal=True, scale=scaling))
    return torch.cat([piece.transpose(1, 2) for piece in found], dim=1), None


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
