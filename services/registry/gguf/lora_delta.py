"""Conversion of a PEFT LoRA adapter into low-rank deltas of the tensors of a GGUF file.

W' = W + scale · B · A, with scale = alpha / r (Hu et al. 2021, arXiv:2106.09685) or alpha / √r
(rsLoRA, Kalajdzievski 2023, arXiv:2312.03732). In GGUF files of the `llama` architecture the rows
of q and k are permuted, since llama.cpp rotates neighbouring pairs where transformers rotates
halves; B is permuted alike. The other architectures listed here have no permutation.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load

from shared.errors import InvalidArtefact
from shared.storage.adapters import CONFIG, WEIGHTS, Adapter

Array = npt.NDArray[np.float32]

_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_KEY = re.compile(r"^base_model\.model\.model\.layers\.(\d+)\.(\w+\.\w+)\.lora_(A|B)\.weight$")
_PERMUTED = frozenset({"llama"})
_UNPERMUTED = frozenset({"qwen2", "qwen3", "gemma", "gemma2", "gemma3"})
# Options of PEFT that change more than the two matrices, so that W' is not W plus a low-rank delta.
_UNSUPPORTED_OPTIONS = (
    "use_dora",
    "modules_to_save",
    "lora_bias",
    "rank_pattern",
    "alpha_pattern",
    "trainable_token_indices",
    "fan_in_fan_out",
)


@dataclass(frozen=True)
class LoraDelta:
    """Low-rank delta of a tensor of shape (out, in): `scale` · `b` (out, r) · `a` (r, in)."""

    a: Array
    b: Array
    scale: float

    @property
    def dense(self) -> Array:
        return self.scale * (self.b @ self.a)


def lora_deltas(
    adapter: Adapter, architecture: str, heads: int, kv_heads: int
) -> dict[str, LoraDelta]:
    """Return the deltas by tensor name in GGUF. Raises InvalidArtefact if the adapter has more than
    low-rank deltas of supported modules, or the architecture is not supported.
    """
    if architecture not in _PERMUTED | _UNPERMUTED:
        supported = ", ".join(sorted(_PERMUTED | _UNPERMUTED))
        raise InvalidArtefact(
            f"adapters cannot be merged into architecture {architecture!r}: its row order in GGUF "
            f"is not known; supported: {supported}"
        )
    config = _config(adapter.files)
    matrices = _matrices(adapter.files)
    deltas = {}
    for (layer, module), pair in sorted(matrices.items()):
        if module not in _NAMES or set(pair) != {"A", "B"}:
            raise InvalidArtefact(
                f"the adapter has lora_{'/'.join(sorted(pair))} for {module} in layer "
                f"{layer}; expected A and B of {', '.join(_NAMES)}"
            )
        a, b = pair["A"], pair["B"]
        if architecture in _PERMUTED and module in ("self_attn.q_proj", "self_attn.k_proj"):
            b = permute(b, heads if module == "self_attn.q_proj" else kv_heads)
        deltas[f"blk.{layer}.{_NAMES[module]}.weight"] = LoraDelta(a, b, _scale(config, a.shape[0]))
    if not deltas:
        raise InvalidArtefact("the adapter has no matrices")
    return deltas


def permute(b: Array, heads: int) -> Array:
    """Reorder rows of q or k from the order of transformers to that of llama.cpp.

    `heads` is the number of attention heads for q and of kv heads for k.
    """
    out, rank = b.shape
    return b.reshape(heads, 2, out // heads // 2, rank).swapaxes(1, 2).reshape(out, rank)


def _config(files: Mapping[str, bytes]) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads(files[CONFIG])
    except (KeyError, ValueError) as error:
        raise InvalidArtefact(f"the adapter has no readable {CONFIG}: {error!r}") from error
    if config.get("peft_type") != "LORA":
        raise InvalidArtefact(
            f"the adapter has type {config.get('peft_type')!r}; only LORA can be merged"
        )
    if config.get("bias", "none") != "none":
        raise InvalidArtefact(
            f"the adapter trains biases (bias={config['bias']!r}); train with bias='none' to "
            "merge it"
        )
    if enabled := [name for name in _UNSUPPORTED_OPTIONS if config.get(name)]:
        raise InvalidArtefact(
            f"the adapter uses {', '.join(enabled)}, which is not a low-rank delta of a weight; "
            "train without it to merge the adapter"
        )
    return config


def _matrices(files: Mapping[str, bytes]) -> dict[tuple[int, str], dict[str, Array]]:
    try:
        tensors = load(files[WEIGHTS])
    # safetensors has an exception of its own besides KeyError; both mean the same here
    except Exception as error:
        raise InvalidArtefact(f"the adapter has no readable {WEIGHTS}: {error!r}") from error
    matrices: dict[tuple[int, str], dict[str, Array]] = {}
    for key, value in tensors.items():
        match = _KEY.match(key)
        if match is None:
            raise InvalidArtefact(
                f"the adapter changes {key}, which is not a projection of a layer"
            )
        matrices.setdefault((int(match[1]), match[2]), {})[match[3]] = value.astype(np.float32)
    return matrices


def _scale(config: Mapping[str, Any], rank: int) -> float:
    alpha = float(config["lora_alpha"])
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
