"""Training on a 4-bit base, on a CPU: the loss falls, gradients survive an evaluation, and the
adapter has the standard format.
"""

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from services.trainer.data.tokenization import encode
from services.trainer.training.base_model import (
    load_base,
    load_quantised,
    save_adapter,
    trainable_adapter,
)
from services.trainer.training.likelihood import collate, log_likelihoods
from services.trainer.training.recipe import train
from shared.config.training import TrainingConfig
from tests.support.tickets import tickets
from tests.trainer.tiny import EXAMPLES, tiny_model, weights

bitsandbytes = pytest.importorskip(
    "bitsandbytes", reason="bitsandbytes is not available on this system"
)

CONFIG = TrainingConfig(
    rank=4, alpha=8, batch_size=8, epochs=30, learning_rate=5e-3, quantisation="nf4"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Folder of the tiny model."""
    tiny_model().save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def linear4bits(model: Any) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]


@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16])
def test_training_in_4_bits_gives_an_adapter_for_plain_peft(
    folder: Path, tmp_path: Path, compute: torch.dtype
) -> None:
    """Every projection of the two layers is in 4 bits: 4 of attention and 3 of the MLP each."""
    model = load_quantised(str(folder), compute, "cpu")
    assert len(linear4bits(model)) == 2 * 7
    losses: list[float] = []
    torch.manual_seed(0)
    with trainable_adapter(model, CONFIG, None) as wrapped:
        assert wrapped.get_base_model().is_gradient_checkpointing
        train(wrapped, EXAMPLES, CONFIG, "cpu", lambda step: losses.append(step.loss))
        save_adapter(wrapped, "tiny", tmp_path / "adapter")
    assert not model.is_gradient_checkpointing
    assert losses[-1] < losses[0] - 0.5
    causal: Any = AutoModelForCausalLM
    adapted = peft.PeftModel.from_pretrained(causal.from_pretrained(folder), tmp_path / "adapter")
    with torch.no_grad():
        after = -float(log_likelihoods(adapted, collate(EXAMPLES, "cpu")).mean())
        before = -float(log_likelihoods(tiny_model(), collate(EXAMPLES, "cpu")).mean())
    assert after < before - 0.4, "also on the served base, which is not in 4 bits"


@pytest.mark.parametrize("quantisation", ["none", "nf4"])
def test_gradient_checkpointing_does_not_change_the_result(
    folder: Path, tmp_path: Path, quantisation: str
) -> None:
    for checkpointing in (True, False):
        config = CONFIG.model_copy(update={"gradient_checkpointing": checkpointing, "epochs": 2})
        model = (
            load_quantised(str(folder), torch.float32, "cpu")
            if quantisation == "nf4"
            else tiny_model()
        )
        torch.manual_seed(0)
        with trainable_adapter(model, config, None) as wrapped:
            train(wrapped, EXAMPLES, config, "cpu", lambda step: None)
            save_adapter(wrapped, "tiny", tmp_path / str(checkpointing))
    for name, weight in weights(tmp_path / "True").items():
        torch.testing.assert_close(weight, weights(tmp_path / "False")[name])


def test_layer_inputs_get_gradients_after_an_evaluation(folder: Path) -> None:
    """On a CPU with bf16 instructions bitsandbytes would repack a layer in its first pass without
    gradients, and drop the gradients from then on.

    The first layer's input comes from the embedding, which requires no gradient; the test makes it
    require one.
    """
    model = load_quantised(str(folder), torch.bfloat16, "cpu")
    assert not any(layer.support_avx512bf16_for_cpu for layer in linear4bits(model))
    with trainable_adapter(model, CONFIG, None) as wrapped:
        named = [
            (name, module)
            for name, module in wrapped.named_modules()
            if type(module).__name__ == "Linear4bit"
        ]
        # A base_layer is part of an adapted layer.
        layers = [module for name, module in named if not name.endswith("base_layer")]
        assert len(layers) == 2 * 7
        wrapped.eval()
        with torch.no_grad():
            log_likelihoods(wrapped, collate(EXAMPLES, "cpu"))
        wrapped.train()
        model.enable_input_require_grads()
        inputs: list[torch.Tensor] = []

        def keep(_: Any, arguments: tuple[torch.Tensor, ...]) -> None:
            arguments[0].retain_grad()
            inputs.append(arguments[0])

        hooks = [layer.register_forward_pre_hook(keep) for layer in layers]
        model.gradient_checkpointing_disable()  # it would run the layers twice
        (-log_likelihoods(wrapped, collate(EXAMPLES, "cpu")).mean()).backward()  # type: ignore[no-untyped-call]  # torch has no types for backward
        for hook in hooks:
            hook.remove()
        assert len(inputs) == len(layers)
        assert all(
            layer_input.grad is not None and bool(layer_input.grad.abs().sum() > 0)
            for layer_input in inputs
        )
        grown = [parameter for name, parameter in wrapped.named_parameters() if "lora_B" in name]
        assert all(
            parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
            for parameter in grown
        )
    model.disable_input_require_grads()


def test_autocast_changes_gradients_only_slightly(folder: Path) -> None:
    """Under autocast the layers around the projections are computed in bf16, which has 8 bits of
    precision.
    """
    model = load_quantised(str(folder), torch.bfloat16, "cpu")
    results = []
    with trainable_adapter(model, CONFIG, None) as wrapped:
        adapter = {
            name: weight for name, weight in wrapped.named_parameters() if weight.requires_grad
        }
        for name, weight in adapter.items():
            weight.data = (
                torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(name))) * 0.1
            )
        for enabled in (False, True):
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                values = log_likelihoods(wrapped, collate(EXAMPLES, "cpu"))
            gradients = torch.autograd.grad(values.mean(), list(adapter.values()))
            results.append(
                (values.detach(), torch.cat([gradient.flatten() for gradient in gradients]))
            )
    (values, gradients_of), (autocast_values, autocast_gradients) = results
    assert autocast_values.dtype == torch.float32
    assert not torch.equal(autocast_values, values)
    assert float((autocast_values - values).norm()) < 0.1 * float(values.norm())
    assert float((autocast_gradients - gradients_of).norm()) < 0.2 * float(gradients_of.norm())


@pytest.mark.model
def test_real_model_trains_in_4_bits_and_is_evaluated_in_fp32(bases: Path) -> None:
    base = load_base(str(bases / "smollm2-135m-instruct"), "auto", "nf4")
    assert linear4bits(base.train_model)
    assert not linear4bits(base.eval_model)
    assert base.eval_model.dtype == torch.float32
    assert base.generation_model is base.eval_model
    config = TrainingConfig(quantisation="nf4", batch_size=8, epochs=3, learning_rate=2e-3)
    examples = [encode(base.vocabulary, sample, 256) for sample in tickets(0, 8)]
    losses: list[float] = []
    torch.manual_seed(0)
    with trainable_adapter(base.train_model, config, None) as wrapped:
        train(wrapped, examples, config, base.device, lambda step: losses.append(step.loss))
    assert losses[-1] < losses[0] - 0.2
