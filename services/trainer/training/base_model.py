"""A base model held in memory, bare or wearing an adapter. The base's own weights never change."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from services.trainer.data.tokenization import Vocabulary
from services.trainer.errors import RunFailed
from services.trainer.kernels.frozen_layers import cache_frozen_layers
from services.trainer.kernels.lora_layer import cast_4bit_output, patch_lora
from services.trainer.machine.device import best_precision, local_device
from shared.config.training import TrainingConfig
from shared.storage.adapters import CONFIG, WEIGHTS

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class LoadedBase:
    """`train` in the precision that trains fastest, or in 4 bits; `judge` in fp32: what is
    evaluated agrees with what an F16 server computes. `speak` is `train` where that has the whole
    weights, else `judge`: it answers fastest, and rounds more. On a device where they are the same
    they are one model.
    """

    vocabulary: Vocabulary
    train_model: Any
    eval_model: Any
    generation_model: Any
    device: str


def load_base(folder: str, precision: str, quantisation: str = "none") -> LoadedBase:
    """Load a base from its folder. Raises OSError when there is none, RunFailed when it cannot be
    held as asked.
    """
    device = local_device()
    chosen = best_precision(device) if precision == "auto" else precision
    judge = _load(folder, torch.float32, device)
    if quantisation == "nf4":
        train, speak = load_quantised(folder, DTYPES[chosen], device), judge
    else:
        train = speak = judge if chosen == "fp32" else _load(folder, DTYPES[chosen], device)
    ends = judge.generation_config.eos_token_id
    return LoadedBase(
        Vocabulary(load_tokenizer(folder), tuple(ends) if isinstance(ends, list) else (ends,)),
        train,
        judge,
        speak,
        device,
    )


def load_tokenizer(folder: str) -> Any:
    """A base's tokenizer without its weights. Raises OSError when there is none."""
    return AutoTokenizer.from_pretrained(folder)


def _load(folder: str, dtype: torch.dtype, device: str) -> Any:
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    model.to(device)
    model.requires_grad_(False)
    return model.eval()


def load_quantised(folder: str, compute: torch.dtype, device: str) -> Any:
    """A base whose projections are held in 4 bits and multiplied in `compute`; all else is fp32.

    QLoRA's NF4 with double quantisation (Dettmers et al. 2023, arXiv:2305.14314). Raises RunFailed
    where bitsandbytes is not installed.
    """
    try:
        from bitsandbytes.nn.modules import Linear4bit
    except ImportError as error:
        raise RunFailed(
            f"nf4 needs bitsandbytes, which is not there: {error}",
            "install it, or set the lane's quantisation to none",
        ) from error
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=compute, quantization_config=nf4_config(compute), device_map={"": device}
    )
    for module in model.modules():
        if isinstance(module, Linear4bit):
            # Where the CPU has bf16 instructions, the first pass without gradients would repack the
            # weights for serving, and from then on the layer's input would get no gradient,
            # silently.
            module.support_avx512bf16_for_cpu = False
    cast_4bit_output(model)
    prepare: Any = peft.prepare_model_for_kbit_training
    return prepare(model, use_gradient_checkpointing=False).eval()


def nf4_config(compute: torch.dtype) -> Any:
    """How QLoRA holds projections, in the terms of the transformers library."""
    bits: Any = BitsAndBytesConfig
    return bits(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )


def needs_loss_scaling(model: Any) -> bool:
    """Whether gradients pass through fp16, whose small numbers run out without a scale; bf16 and
    fp32 have the range.
    """
    return bool(model.dtype == torch.float16) or any(
        getattr(module, "compute_dtype", None) == torch.float16 for module in model.modules()
    )


@contextmanager
def with_adapter(model: Any, adapter: Path | None) -> Iterator[Any]:
    """The model with an adapter from its folder, for the length of a block; bare for None."""
    if adapter is None:
        yield model
        return
    config = peft.LoraConfig.from_pretrained(str(adapter))
    config.base_model_name_or_path = (
        None  # the digest names the base; PEFT would compare this path with the one here, and warn
    )
    with _peft_model(model, config) as wrapped:
        _load_adapter(wrapped, adapter)
        yield wrapped.get_base_model()


@contextmanager
def trainable_adapter(model: Any, config: TrainingConfig, parent: Path | None) -> Iterator[Any]:
    """The model with a trainable fp32 adapter, which starts as `parent`'s weights or as fresh ones
    that change nothing yet. With `gradient_checkpointing` a layer's activations are computed again
    in the backward pass, for the same gradients.

    Raises RunFailed when the parent's adapter has another shape than `config` asks for, or the base
    has fewer layers.
    """
    lora = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=list(config.targets),
        layers_to_transform=_adapted_layers(model, config.layers),
        bias="none",
        task_type="CAUSAL_LM",
    )
    if parent is not None:
        _check_shape(config, parent)
    with _peft_model(model, lora) as wrapped:
        if parent is not None:
            _load_adapter(wrapped, parent)
        causal = wrapped.get_base_model()
        with (
            _checkpointing(causal, config.gradient_checkpointing),
            cache_frozen_layers(causal, config.layers),
        ):
            yield wrapped


def _adapted_layers(model: Any, layers: int | None) -> list[int] | None:
    """The places of the last `layers` decoder layers; None for all."""
    if layers is None:
        return None
    there = model.config.get_text_config().num_hidden_layers
    if layers > there:
        raise RunFailed(
            f"the lane adapts {layers} layers, and the base has {there}",
            f"set the lane's layers to at most {there}",
        )
    return list(range(there - layers, there))


@contextmanager
def _checkpointing(causal: Any, wanted: bool) -> Iterator[None]:
    if not wanted:
        yield
        return
    # Without re-entrance the inputs need not ask for a gradient, which the library makes them do:
    # it would be computed for nothing.
    causal.gradient_checkpointing_enable({"use_reentrant": False})
    causal.disable_input_require_grads()
    try:
        yield
    finally:
        causal.gradient_checkpointing_disable()


@contextmanager
def _peft_model(model: Any, config: Any) -> Iterator[Any]:
    wrapped = peft.get_peft_model(model, config)
    patch_lora(wrapped)
    try:
        yield wrapped
    finally:
        wrapped.unload()


def _load_adapter(wrapped: Any, adapter: Path) -> None:
    found: Any = peft.set_peft_model_state_dict(wrapped, load_file(adapter / WEIGHTS))
    if found.unexpected_keys:
        raise RunFailed(
            f"the adapter has weights that this base has no place for: {found.unexpected_keys[0]}",
            "check the base in the model file",
        )


def _check_shape(config: TrainingConfig, parent: Path) -> None:
    lora = json.loads((parent / CONFIG).read_text())
    places = lora.get("layers_to_transform")
    asked = {
        "rank": config.rank,
        "alpha": config.alpha,
        "targets": sorted(config.targets),
        "layers": config.layers,
    }
    found = {
        "rank": lora["r"],
        "alpha": lora["lora_alpha"],
        "targets": sorted(lora["target_modules"]),
        "layers": places and len(places),
    }
    if asked != found:
        raise RunFailed(
            f"the champion's adapter has {found}, the lane asks for {asked}",
            "set the lane back to the champion's shape, or begin a new lineage with a master run",
        )


def save_adapter(wrapped: Any, base: str, folder: Path) -> None:
    """Write the adapter that a model wears, in PEFT's conventions. `base` is the name that its
    configuration gives for the base.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = wrapped.peft_config["default"]
    config.base_model_name_or_path = base
    config.inference_mode = True
    config.save_pretrained(str(folder))
    state = peft.get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    weights = {name: weight.detach().cpu().contiguous() for name, weight in state.items()}
    save_file(weights, folder / WEIGHTS)
