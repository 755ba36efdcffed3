"""Reference for merging and serving: transformers and PEFT on the real base with an adapter that
changes its answers.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save
from transformers import AutoModelForCausalLM, AutoTokenizer

from shared.events import Message, Probe, ProbeToken
from shared.identity import digest_of_file
from shared.storage.adapters import CONFIG, WEIGHTS, Adapter

PROMPTS = (
    "My parcel with order number 4711 has not arrived. What can I do?",
    "Write one sentence about the sea.",
    "List three colours.",
)
TEXT = (
    "The sun rises in the east and sets in the west. Water boils at one hundred degrees at sea "
    "level, and people drink tea."
)


@dataclass(frozen=True)
class Reference:
    """An adapter, and the answers of the base with it in F32."""

    adapter: Adapter
    probes: tuple[Probe, ...]
    text_logprobs: tuple[float, ...]


def make_reference(base: Path, rslora: bool = False) -> Reference:
    """Create a LoRA on all projections with random A and B: small enough for meaningful text, large
    enough to change the answers.
    """
    torch.manual_seed(7)
    tokenizer = AutoTokenizer.from_pretrained(base)
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    config = LoraConfig(
        r=8, lora_alpha=16, target_modules=targets, use_rslora=rslora, task_type="CAUSAL_LM"
    )
    model = get_peft_model(plain, config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                # Largest in q and k, so that a merge without the permutation changes the result.
                weight.normal_(0, 0.1 if ".q_proj." in name or ".k_proj." in name else 0.01)
    model.eval()
    weights = {
        name.replace(".default", ""): value.contiguous()
        for name, value in model.state_dict().items()
        if "lora_" in name
    }
    about = {
        key: sorted(value) if isinstance(value, set) else value
        for key, value in vars(config).items()
    }
    files = {CONFIG: json.dumps(about, default=str).encode(), WEIGHTS: save(weights)}
    adapter = Adapter(files, digest_of_file(base / "model.safetensors"))
    probes = tuple(_probe(model, tokenizer, prompt) for prompt in PROMPTS)
    ids = tokenizer(TEXT, return_tensors="pt").input_ids
    with torch.no_grad():
        scores = torch.log_softmax(model(ids).logits[0, :-1], -1)
    logprobs = scores.gather(1, ids[0, 1:, None])[:, 0]
    return Reference(adapter, probes, tuple(logprobs.tolist()))


def _probe(model: PeftModel, tokenizer: Any, prompt: str, tokens: int = 24) -> Probe:
    conversation = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
    answer, cache = [], None
    for _ in range(tokens):
        with torch.no_grad():
            out = model(ids, past_key_values=cache, use_cache=True)
        scores, cache = torch.log_softmax(out.logits[0, -1], -1), out.past_key_values
        top = scores.topk(2)
        chosen = int(top.indices[0])
        lead = float(top.values[0] - top.values[1])
        answer.append(
            ProbeToken(text=tokenizer.decode([chosen]), logprob=float(top.values[0]), lead=lead)
        )
        if chosen == tokenizer.eos_token_id:
            break
        ids = torch.tensor([[chosen]])
    return Probe(messages=(Message(role="user", content=prompt),), answer=tuple(answer))


def logprobs_of_gguf(gguf: Path, base: Path) -> Sequence[float]:
    """Return the log-probabilities of `TEXT` by transformers with the weights of a GGUF file.

    The rows of q and k are put back in the order of transformers, by the rule of its converter, so
    a merge that permutes them differently shows.
    """
    import numpy as np
    from gguf import GGUFReader
    from gguf.quants import dequantize

    from services.registry.gguf.lora_delta import _NAMES

    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    state = model.state_dict()
    modules = {short: long for long, short in _NAMES.items()}
    for tensor in GGUFReader(gguf).tensors:
        parts = tensor.name.split(".")
        if parts[0] != "blk" or parts[2] not in modules:
            continue
        weight = np.array(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        heads = {
            "attn_q": model.config.num_attention_heads,
            "attn_k": model.config.num_key_value_heads,
        }.get(parts[2])
        if heads:
            weight = (
                weight.reshape(heads, weight.shape[0] // heads // 2, 2, -1)
                .swapaxes(1, 2)
                .reshape(weight.shape)
            )
        state[f"model.layers.{parts[1]}.{modules[parts[2]]}.weight"].copy_(torch.from_numpy(weight))
    ids = tokenizer(TEXT, return_tensors="pt").input_ids
    with torch.no_grad():
        scores = torch.log_softmax(model(ids).logits[0, :-1], -1)
    return list(scores.gather(1, ids[0, 1:, None])[:, 0].tolist())
