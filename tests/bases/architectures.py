"""Tiny configurations of the architectures that teams run."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

LAYERS = 4
_COMMON: Mapping[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
_EXPERTS: Mapping[str, Any] = {"num_experts_per_tok": 2, "head_dim": 8}
_GEMMA: Mapping[str, Any] = {"head_dim": 8, "query_pre_attn_scalar": 8}
_OWN: Mapping[str, Mapping[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "mistral": {"head_dim": 8},
    "granite": {},
    "olmo2": {},
    "olmo3": {},
    "smollm3": {},
    "gemma2": _GEMMA,
    "gemma3_text": _GEMMA,
    "gemma4_text": {
        "head_dim": 8,
        "global_head_dim": 8,
        "layer_types": ["full_attention"] * LAYERS,
        "vocab_size_per_layer_input": 96,
        "hidden_size_per_layer_input": 8,
    },
    "phi": {},
    "phi3": {},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "falcon_h1": {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8},
    "granitemoehybrid": {
        "layer_types": ["mamba", "attention"] * 2,
        "num_local_experts": 0,
        "shared_intermediate_size": 48,
        "mamba_n_heads": 8,
        "mamba_d_head": 8,
        "mamba_d_state": 8,
    },
    "qwen3_5_text": {
        "head_dim": 8,
        "layer_types": ["linear_attention"] * 3 + ["full_attention"],
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
    },
    "mixtral": {**_EXPERTS, "num_local_experts": 4},
    "qwen3_moe": {**_EXPERTS, "num_experts": 4, "moe_intermediate_size": 16},
    "gpt_oss": {
        **_EXPERTS,
        "num_local_experts": 4,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
    },
}
ARCHITECTURES: Sequence[str] = tuple(_OWN)
MIXTURES = ("mixtral", "qwen3_moe", "gpt_oss")


def tiny_config(architecture: str, **changes: Any) -> Any:
    make: Any = AutoConfig.for_model
    return make(architecture, **{**_COMMON, **_OWN[architecture], **changes})


def frozen_model(config: Any) -> Any:
    """A model with random weights that do not change."""
    torch.manual_seed(3)
    torch.set_num_threads(1)  # for so few weights, threads cost more than they save
    causal: Any = AutoModelForCausalLM
    model = causal.from_config(config)
    model.requires_grad_(False)
    return model.eval()
