"""Training on a base in 4 bits, on a CPU: it learns, nothing is lost after an evaluation, and the
adapter is an ordinary one.
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
from tests.trainer.tickets import tickets
from tests.trainer.tiny import EXAMPLES, tiny_model, weights

bitsandbytes = pytest.importorskip(
    "bitsandbytes", reason="there is no bitsandbytes for this system"
)

CONFIG = TrainingConfig(
    rank=4, alpha=8, batch_size=8, epochs=30, learning_rate=5e-3, quantisation="nf4"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The tiny model's folder."""
    tiny_model().save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def linear4bits(model: Any) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]


@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16])
def test_it_learns_and_plain_peft_reads_the_adapter(
    folder: Path, tmp_path: Path, compute: torch.dtype
) -> None:
    """Every projection of the two layers is in 4 bits: 4 of attention and 3 of the perceptron each."""
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
    worn = peft.PeftModel.from_pretrained(causal.from_pretrained(folder), tmp_path / "adapter")
    with torch.no_grad():
        after = -float(log_likelihoods(worn, collate(EXAMPLES, "cpu")).mean())
        before = -float(log_likelihoods(tiny_model(), collate(EXAMPLES, "cpu")).mean())
    assert after < before - 0.4, "also on the base that is served, which is not in 4 bits"


@pytest.mark.parametrize("quantisation", ["none", "nf4"])
def test_checkpointing_changes_no_gradient(folder: Path, tmp_path: Path, quantisation: str) -> None:
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


def test_after_an_evaluation_the_input_of_every_layer_still_gets_a_gradient(folder: Path) -> None:
    """On a CPU with bf16 instructions bitsandbytes would repack a layer in its first pass without
    gradients, and drop them from then on.

    The first layer's own input comes from the embedding, which asks for no gradient: it is made to
    ask here.
    """
    model = load_quantised(str(folder), torch.bfloat16, "cpu")
    assert not any(layer.support_avx512bf16_for_cpu for layer in linear4bits(model))
    with trainable_adapter(model, CONFIG, None) as wrapped:
        named = [
            (name, module)
            for name, module in wrapped.named_modules()
            if type(module).__name__ == "Linear4bit"
        ]
        layers = [
            module for name, module in named if not name.endswith("base_layer")
        ]  # that is within an adapted one
        assert len(layers) == 2 * 7
        wrapped.eval()
        with torch.no_grad():
            log_likelihoods(wrapped, collate(EXAMPLES, "cpu"))
        wrapped.train()
        model.enable_input_require_grads()
        inputs: list[torch.Tensor] = []

        def keep(_: Any, given: tuple[torch.Tensor, ...]) -> None:
            given[0].retain_grad()
            inputs.append(given[0])

        hooks = [layer.register_forward_pre_hook(keep) for layer in layers]
        model.gradient_checkpointing_disable()  # it would run the layers twice
        (-log_likelihoods(wrapped, collate(EXAMPLES, "cpu")).mean()).backward()  # type: ignore[no-untyped-call]  # torch has no types for it
        for hook in hooks:
            hook.remove()
        assert len(inputs) == len(layers)
        assert all(given.grad is not None and bool(given.grad.abs().sum() > 0) for given in inputs)
        grown = [parameter for name, parameter in wrapped.named_parameters() if "lora_B" in name]
        assert all(
            parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
            for parameter in grown
        )
    model.disable_input_require_grads()


def test_under_autocast_as_on_a_gpu_it_learns_nearly_the_same(folder: Path) -> None:
    """What is around the projections is computed in bf16 then, which has 8 bits."""
    model = load_quantised(str(folder), torch.bfloat16, "cpu")
    found = []
    with trainable_adapter(model, CONFIG, None) as wrapped:
        adapter = {
            name: weight for name, weight in wrapped.named_parameters() if weight.requires_grad
        }
        for name, weight in adapter.items():
            weight.data = (
                torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(name))) * 0.1
            )
        for on in (False, True):
            with torch.autocast("cpu", torch.bfloat16, enabled=on):
                values = log_likelihoods(wrapped, collate(EXAMPLES, "cpu"))
            gradients = torch.autograd.grad(values.mean(), list(adapter.values()))
            found.append(
                (values.detach(), torch.cat([gradient.flatten() for gradient in gradients]))
            )
    (values, gradients_of), (others, other_gradients) = found
    assert others.dtype == torch.float32
    assert not torch.equal(others, values)
    assert float((others - values).norm()) < 0.1 * float(values.norm())
    assert float((other_gradients - gradients_of).norm()) < 0.2 * float(gradients_of.norm())


@pytest.mark.model
def test_the_real_small_model_learns_in_4_bits_and_is_judged_in_full(bases: Path) -> None:
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
