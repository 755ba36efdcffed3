#!/usr/bin/env bash
# PEFT 0.21.2 with transformers 5.17.0, Qwen3-MoE: LoRA on chosen layers of a mixture of experts
# adapts all layers.
#
# Expected: `layers_to_transform=[2, 3]`, or a regular expression of module names for layers 2 and 3,
# adapts two of four layers. It does so on Qwen3, the dense model.
# Observed on Qwen3-MoE:
# - a regular expression selects by its last part alone: attention is adapted in all four layers,
#   also when no feed-forward projection is named;
# - `layers_to_transform` is respected for attention, but experts are adapted in all four layers.
# Nothing is raised. With feed-forward targets there are two warnings, about rank and alpha patterns
# that the caller never set. A run trains more than was asked for, and its adapter changes layers
# that should have stayed as they are.
#
# Needs Python 3.11 or newer, and PyPI. Takes a few minutes, most of them to install.
# Exit status 0 while the behaviour is as stated, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet peft==0.21.2 transformers==5.17.0 torch==2.15.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import logging
import re
import sys
import warnings

import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

logging.disable(logging.WARNING)
SHAPE = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
FEED_FORWARD = ["q_proj", "gate_proj", "up_proj", "down_proj"]
SETTINGS = {
    "q_proj, layers_to_transform": {"target_modules": ["q_proj"], "layers_to_transform": [2, 3]},
    "q_proj, regular expression": {"target_modules": r".*layers\.(2|3)\..*\.q_proj"},
    "with feed-forward, layers_to_transform": {
        "target_modules": FEED_FORWARD,
        "layers_to_transform": [2, 3],
    },
    "with feed-forward, regular expression": {
        "target_modules": rf".*layers\.(2|3)\..*\.({'|'.join(FEED_FORWARD)})"
    },
}


def dense() -> PreTrainedModel:
    return Qwen3ForCausalLM(Qwen3Config(**SHAPE))


def mixture() -> PreTrainedModel:
    return Qwen3MoeForCausalLM(Qwen3MoeConfig(**SHAPE, **EXPERTS))


def adapted(model: PreTrainedModel, setting: dict) -> tuple[set[int], set[int]]:
    """Layers with adapted attention, and with adapted feed-forward weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft = get_peft_model(model, LoraConfig(r=2, task_type="CAUSAL_LM", **setting))
    found: dict[str, set[int]] = {"self_attn": set(), "mlp": set()}
    for name, _ in peft.named_parameters():
        if match := re.search(r"layers\.(\d+)\.(self_attn|mlp)\..*lora_A", name):
            found[match[2]].add(int(match[1]))
    return found["self_attn"], found["mlp"]


CHOSEN, ALL, NONE = {2, 3}, {0, 1, 2, 3}, set()
STATED = {
    "dense": [(CHOSEN, NONE), (CHOSEN, NONE), (CHOSEN, CHOSEN), (CHOSEN, CHOSEN)],
    "mixture": [(CHOSEN, NONE), (ALL, NONE), (CHOSEN, ALL), (ALL, ALL)],
}
as_stated = True
torch.manual_seed(0)
for kind, build in (("dense", dense), ("mixture", mixture)):
    for (name, setting), stated in zip(SETTINGS.items(), STATED[kind], strict=True):
        layers = adapted(build(), setting)
        as_stated &= layers == stated
        print(f"{kind}: {name}: attention {sorted(layers[0])}, feed-forward {sorted(layers[1])}")
print("as stated" if as_stated else "changed")
sys.exit(not as_stated)
PYTHON
