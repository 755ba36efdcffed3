"""Tiny models of two families, each as a transformers folder and as a GGUF file in the layout of
llama.cpp's converter.

Weights are random, in Q8_0 in the file and with the same values in the folder. A token is one
character.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import torch
from gguf.constants import GGMLQuantizationType
from gguf.quants import dequantize, quantize
from tokenizers import AddedToken, Tokenizer, decoders
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

Array = npt.NDArray[np.float32]

FAMILIES = ("llama", "qwen2")
TOKENS = 130
"""The characters of ASCII, a token that ends a text, and one of two characters, since the format
wants a merge.
"""

_END = 128

_HEADS, _KV_HEADS, _HIDDEN, _LAYERS, _CONTEXT, _THETA, _EPSILON = 4, 2, 64, 2, 256, 10_000.0, 1e-5
_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
_OUTSIDE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


@dataclass(frozen=True)
class ModelPair:
    """A model and its GGUF file, which must give the same answers."""

    model: Any
    file: Path


def make(
    family: str, folder: Path, template: str | None = None, adds_first_token: bool = False
) -> ModelPair:
    """Create a model whose attention depends on positions, so permuted rows of q and k show.
    `template` is the chat template of the file; with `adds_first_token`, `<end>` comes before every
    text.
    """
    torch.manual_seed(3)
    kind, config = (
        (LlamaForCausalLM, LlamaConfig) if family == "llama" else (Qwen2ForCausalLM, Qwen2Config)
    )
    make_config: Any = config
    causal: Any = kind
    model = causal(
        make_config(
            vocab_size=TOKENS,
            hidden_size=_HIDDEN,
            intermediate_size=96,
            num_hidden_layers=_LAYERS,
            num_attention_heads=_HEADS,
            num_key_value_heads=_KV_HEADS,
            max_position_embeddings=_CONTEXT,
            rms_norm_eps=_EPSILON,
            rope_parameters={"rope_type": "default", "rope_theta": _THETA},
            initializer_range=0.2,
            bos_token_id=None,
            eos_token_id=_END,
            tie_word_embeddings=False,
        )
    ).eval()
    state: dict[str, torch.Tensor] = model.state_dict()
    for name, weight in state.items():
        if name.endswith("bias"):
            weight.normal_(0, 0.5)
        elif weight.ndim == 2:
            raw = quantize(weight.numpy(), GGMLQuantizationType.Q8_0)
            weight.copy_(torch.from_numpy(dequantize(raw, GGMLQuantizationType.Q8_0).copy()))
    file = folder / "model.gguf"
    write(
        family,
        {name: weight.numpy() for name, weight in state.items()},
        file,
        template,
        adds_first_token,
    )
    return ModelPair(model, file)


def save_base(pair: ModelPair, folder: Path, template: str, adds_first_token: bool = False) -> None:
    """Save the model of a pair and the tokenizer of its file as a base."""
    vocabulary = {token: place for place, token in enumerate([*_letters(), "<end>", "th"])}
    tokenizer = Tokenizer(BPE(vocabulary, [("t", "h")]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<end>", special=True)])
    if adds_first_token:
        tokenizer.post_processor = TemplateProcessing(
            single="<end> $A", special_tokens=[("<end>", _END)]
        )
    fast: Any = PreTrainedTokenizerFast
    fast(tokenizer_object=tokenizer, chat_template=template).save_pretrained(folder)
    pair.model.save_pretrained(folder)


def write(
    family: str,
    state: dict[str, Array],
    file: Path,
    template: str | None = None,
    adds_first_token: bool = False,
) -> None:
    """Write a GGUF file from weights with their transformers names. The model must have the layers,
    heads and hidden units of these families; the file has their vocabulary in any case.
    """
    writer = gguf.GGUFWriter(file, family)
    writer.add_context_length(_CONTEXT)
    writer.add_embedding_length(_HIDDEN)
    writer.add_block_count(_LAYERS)
    writer.add_feed_forward_length(96)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_KV_HEADS)
    writer.add_layer_norm_rms_eps(_EPSILON)
    writer.add_rope_freq_base(_THETA)
    writer.add_rope_dimension_count(_HIDDEN // _HEADS)
    writer.add_vocab_size(TOKENS)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*_letters(), "<end>", "th"])
    writer.add_token_types(
        [gguf.TokenType.NORMAL] * 128 + [gguf.TokenType.CONTROL, gguf.TokenType.NORMAL]
    )
    writer.add_token_merges(["t h"])
    writer.add_eos_token_id(_END)
    if adds_first_token:
        writer.add_bos_token_id(_END)
    writer.add_add_bos_token(adds_first_token)
    if template is not None:
        writer.add_chat_template(template)
    for name, weight in state.items():
        tensor, rows = _tensor(family, name, weight)
        if weight.ndim == 2:
            kind = GGMLQuantizationType.Q8_0
            writer.add_tensor(tensor, quantize(rows, kind), raw_dtype=kind)
        else:
            writer.add_tensor(tensor, rows)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _tensor(family: str, name: str, weight: Array) -> tuple[str, Array]:
    """Return a tensor's name and row order in the file, by an independent implementation of
    llama.cpp's converter.
    """
    if name in _OUTSIDE:
        return _OUTSIDE[name], weight
    _, _, layer, *module, kind = name.split(".")
    short = _NAMES[".".join(module)]
    heads = {"attn_q": _HEADS, "attn_k": _KV_HEADS}.get(short)
    if family == "llama" and heads is not None:
        half = weight.shape[0] // heads // 2
        order = [
            head * 2 * half + index + side * half
            for head in range(heads)
            for index in range(half)
            for side in (0, 1)
        ]
        weight = weight[order]
    return f"blk.{layer}.{short}.{kind}", np.ascontiguousarray(weight)


def _letters() -> list[str]:
    """Return GPT-2's byte letters for ASCII: printable characters as themselves, the others as
    code points above 255.
    """
    hidden = iter(range(256, 512))
    return [chr(code if 33 <= code < 127 else next(hidden)) for code in range(128)]
