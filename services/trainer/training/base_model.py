"""A base model in memory, with or without an adapter. The base's own weights never change."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig

from services.trainer.data.tokenization import Vocabulary
from services.trainer.errors import RunFailed
from services.trainer.kernels.frozen_layers import ActivationCache, cache_frozen_layers
from services.trainer.kernels.lora_layer import cast_4bit_output, patch_lora
from services.trainer.machine.device import best_precision, local_device
from services.trainer.machine.memory import EVALUATION_CACHE_BYTES
from services.trainer.training.attention import attention_implementation
from services.trainer.training.base_check import load_checked_vocabulary
from services.trainer.training.targets import AdaptedModules, adapted_modules
from shared.config.template_variables import DEFAULT_VARIABLES, TemplateVariables
from shared.config.training import TrainingConfig
from shared.storage.adapters import CONFIG, WEIGHTS

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class LoadedBase:
    """The copies of a base in memory.

    `train_model` has the precision that trains fastest, or 4-bit weights. `eval_model` is fp32, so
    that evaluation agrees with an F16 server. `generation_model` is `train_model` if that has full
    weights, else `eval_model`: it generates fastest but rounds more. Copies of equal precision are
    one model. `evaluation_cache` keeps what `eval_model` computes below the adapted layers.
    """

    vocabulary: Vocabulary
    train_model: Any
    eval_model: Any
    generation_model: Any
    device: str
    evaluation_cache: ActivationCache = field(
        default_factory=lambda: ActivationCache(EVALUATION_CACHE_BYTES, for_inference=True)
    )


def load_base(
    folder: str,
    precision: str,
    quantisation: str = "none",
    template: TemplateVariables = DEFAULT_VARIABLES,
) -> LoadedBase:
    """Load a base from its folder. Raises OSError if it is missing, RunFailed if it cannot be
    loaded as configured.
    """
    vocabulary = load_checked_vocabulary(folder, template)
    device = local_device()
    resolved_precision = best_precision(device) if precision == "auto" else precision
    eval_model = _load(folder, torch.float32, device)
    if quantisation == "nf4":
        train_model = load_quantised(folder, DTYPES[resolved_precision], device)
        generation_model = eval_model
    elif resolved_precision == "fp32":
        train_model = generation_model = eval_model
    else:
        train_model = generation_model = _load(folder, DTYPES[resolved_precision], device)
    return LoadedBase(vocabulary, train_model, eval_model, generation_model, device)


def _load(folder: str, dtype: torch.dtype, device: str) -> Any:
    attention = attention_implementation(AutoConfig.from_pretrained(folder))
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation=attention
    )
    model.to(device)
    model.requires_grad_(False)
    return model.eval()


def load_quantised(folder: str, compute: torch.dtype, device: str) -> Any:
    """Load a base with 4-bit projections whose products are computed in `compute`; all other
    weights are fp32.

    QLoRA's NF4 with double quantisation (Dettmers et al. 2023, arXiv:2305.14314). Raises RunFailed
    if bitsandbytes is not installed.
    """
    try:
        from bitsandbytes.nn.modules import Linear4bit
    except ImportError as error:
        raise RunFailed(
            f"nf4 needs bitsandbytes, which cannot be imported: {error}",
            "install bitsandbytes, or set the lane's quantisation to none",
        ) from error
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=compute,
        quantization_config=nf4_config(compute),
        device_map={"": device},
        attn_implementation=attention_implementation(AutoConfig.from_pretrained(folder)),
    )
    for module in model.modules():
        if isinstance(module, Linear4bit):
            # On CPUs with bf16 instructions, the first pass without gradients would repack the
            # weights for inference. From then on the layer's input would silently get no gradient.
            module.support_avx512bf16_for_cpu = False
    cast_4bit_output(model)
    prepare_for_training: Any = peft.prepare_model_for_kbit_training
    return prepare_for_training(model, use_gradient_checkpointing=False).eval()


def nf4_config(compute: torch.dtype) -> Any:
    """QLoRA's quantisation as a transformers configuration."""
    config_class: Any = BitsAndBytesConfig
    return config_class(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )


def needs_loss_scaling(model: Any) -> bool:
    """Return True if gradients pass through fp16, whose range is too small for them without loss
    scaling; bf16 and fp32 have the range.
    """
    return bool(model.dtype == torch.float16) or any(
        getattr(module, "compute_dtype", None) == torch.float16 for module in model.modules()
    )


@contextmanager
def with_adapter(
    model: Any, adapter: Path | None, cache: ActivationCache | None = None
) -> Iterator[Any]:
    """Yield the model with an adapter from its folder, or without one for None. With a cache, what
    the layers below the adapted ones compute is taken from it.
    """
    if adapter is None:
        yield model
        return
    config = peft.LoraConfig.from_pretrained(str(adapter))
    # The digest identifies the base. PEFT would compare this path with the local one, and warn.
    config.base_model_name_or_path = None
    with _peft_model(model, config) as wrapped:
        _load_adapter(wrapped, adapter)
        causal = wrapped.get_base_model()
        adapted = _adapted_layers(causal, config.layers_to_transform)
        with cache_frozen_layers(causal, adapted, cache) if cache else nullcontext():
            yield causal


def _adapted_layers(causal: Any, transformed: Sequence[int] | int | None) -> int | None:
    """Return the number of layers from the first adapted one on; None if all may be adapted."""
    if transformed is None:
        return None
    first = transformed if isinstance(transformed, int) else min(transformed)
    return int(causal.config.get_text_config().num_hidden_layers) - first


@contextmanager
def trainable_adapter(model: Any, config: TrainingConfig, parent: Path | None) -> Iterator[Any]:
    """Yield the model with a trainable fp32 adapter.

    The adapter starts with `parent`'s weights, or with fresh ones that do not change the model's
    output. With `gradient_checkpointing`, activations of a layer are recomputed in the backward
    pass, for the same gradients.

    Raises RunFailed if the parent's adapter has a different shape than `config`, or if the base has
    fewer layers or nothing that a target names.
    """
    modules = adapted_modules(model, config)
    lora = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=modules.target_modules,
        layers_to_transform=modules.layers_to_transform,
        bias="none",
        task_type="CAUSAL_LM",
    )
    if parent is not None:
        _check_shape(config, modules, parent)
    with _peft_model(model, lora) as wrapped:
        if parent is not None:
            _load_adapter(wrapped, parent)
        causal = wrapped.get_base_model()
        with (
            _checkpointing(causal, config.gradient_checkpointing),
            cache_frozen_layers(causal, config.layers),
        ):
            yield wrapped


@contextmanager
def _checkpointing(causal: Any, enabled: bool) -> Iterator[None]:
    if not enabled:
        yield
        return
    # Without re-entrance, inputs need no gradient. transformers makes them require one, which would
    # be computed in vain.
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
    result: Any = peft.set_peft_model_state_dict(wrapped, load_file(adapter / WEIGHTS))
    if result.unexpected_keys:
        raise RunFailed(
            f"the adapter has weights that do not exist in this base: {result.unexpected_keys[0]}",
            "check the base in the model file",
        )


def _check_shape(config: TrainingConfig, modules: AdaptedModules, parent: Path) -> None:
    lora = json.loads((parent / CONFIG).read_text())
    lane_shape = _shape(
        config.rank, config.alpha, modules.target_modules, modules.layers_to_transform
    )
    champion_shape = _shape(
        lora["r"], lora["lora_alpha"], lora["target_modules"], lora.get("layers_to_transform")
    )
    if lane_shape != champion_shape:
        raise RunFailed(
            f"the champion's adapter has {champion_shape}, the lane asks for {lane_shape}",
            "restore the lane's previous settings, or start a new lineage with a master run",
        )


def _shape(
    rank: int, alpha: int, targets: Sequence[str] | str, layers: Sequence[int] | None
) -> dict[str, Any]:
    return {
        "rank": rank,
        "alpha": alpha,
        "targets": targets if isinstance(targets, str) else sorted(targets),
        "layers": layers and len(layers),
    }


def save_adapter(wrapped: Any, base: str, folder: Path) -> None:
    """Write the model's adapter in PEFT's format. `base` is the base's name in the adapter's
    configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = wrapped.peft_config["default"]
    config.base_model_name_or_path = base
    config.inference_mode = True
    if not isinstance(config.target_modules, str):
        # PEFT holds a set, whose order differs from process to process, and so would the digest.
        config.target_modules = sorted(config.target_modules)
    config.save_pretrained(str(folder))
    state = peft.get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    weights = {name: weight.detach().cpu().contiguous() for name, weight in state.items()}
    save_file(weights, folder / WEIGHTS)
