"""Patched LoRA layers compute the same as PEFT's own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from services.trainer.kernels.lora_layer import patch_lora
from services.trainer.training.base_model import load_quantised
from tests.trainer.tiny import tiny_model

INPUTS = {"q_proj": 32, "down_proj": 48}


def adapted(model: Any, dropout: float = 0.0) -> Any:
    """Return a model with an adapter of random weights."""
    config = peft.LoraConfig(
        r=4, lora_alpha=12, target_modules=list(INPUTS), lora_dropout=dropout, task_type="CAUSAL_LM"
    )
    wrapped = peft.get_peft_model(model, config)
    torch.manual_seed(1)
    for name, weight in wrapped.named_parameters():
        if "lora_" in name:
            weight.data = torch.randn(weight.shape, dtype=weight.dtype)
    return wrapped


def layers(wrapped: Any) -> list[tuple[Any, int]]:
    """Return the adapted projections with the width of their input."""
    return [
        (module, INPUTS[name.split(".")[-1]])
        for name, module in wrapped.named_modules()
        if name.split(".")[-1] in INPUTS
    ]


def values_and_gradients(layer: Any, x: torch.Tensor) -> list[torch.Tensor]:
    x = x.clone().requires_grad_(True)
    output = layer(x)
    weights = [weight for name, weight in layer.named_parameters() if "lora_" in name]
    weighting = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    return [output.detach(), *torch.autograd.grad(output, [x, *weights], weighting)]


def assert_alike(wrapped: Any, dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(2)
    inputs = [(layer, torch.randn(2, 5, width, dtype=dtype)) for layer, width in layers(wrapped)]
    assert len(inputs) == 4
    before = [values_and_gradients(layer, x) for layer, x in inputs]
    patch_lora(wrapped)
    after = [values_and_gradients(layer, x) for layer, x in inputs]
    for patched, original in zip(after, before, strict=True):
        for tensor, expected in zip(patched, original, strict=True):
            assert float((tensor - expected).norm()) <= tolerance * float(expected.norm())


def test_values_and_gradients_match_peft() -> None:
    model = tiny_model().double()
    for block in model.model.layers:
        block.mlp.down_proj.bias = torch.nn.Parameter(
            torch.randn(32, dtype=torch.float64), requires_grad=False
        )
    assert_alike(adapted(model).double(), torch.float64, 1e-12)


@pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning"
)  # bitsandbytes warns about its own code
@pytest.mark.parametrize(("compute", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_4_bit_base_matches_peft(tmp_path: Path, compute: torch.dtype, tolerance: float) -> None:
    """In bf16, which has 8 bits of precision, PEFT still multiplies the adapter in fp32."""
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not available on this system")
    tiny_model().save_pretrained(tmp_path)
    wrapped = adapted(load_quantised(str(tmp_path), compute, "cpu"))
    assert all(
        layer(torch.ones(1, width)).dtype == torch.float32 for layer, width in layers(wrapped)
    )
    assert_alike(wrapped, torch.float32, tolerance)
    assert all(
        layer(torch.ones(1, width)).dtype == torch.float32 for layer, width in layers(wrapped)
    )


def test_dropout_gradient_matches_finite_differences() -> None:
    """Finite differences use the same random numbers each time. About half of the inputs count,
    twice.
    """
    wrapped = adapted(tiny_model().double(), dropout=0.5).double().train()
    patch_lora(wrapped)
    layer, width = layers(wrapped)[0]
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight

    def drawn(x: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(3)
        output: torch.Tensor = layer(x)
        return output

    check: Callable[..., bool] = torch.autograd.gradcheck
    assert check(drawn, (torch.randn(3, width, dtype=torch.float64, requires_grad=True), a, b))
    ones = torch.ones(2000, width, dtype=torch.float64)
    added = (layer(ones) - layer.base_layer(ones)).mean(0)
    torch.testing.assert_close(added, layer.scaling["default"] * (b @ a.sum(1)), rtol=0.1, atol=2.0)
    wrapped.eval()
    torch.testing.assert_close(
        layer(ones[:1])[0] - layer.base_layer(ones[:1])[0],
        layer.scaling["default"] * (b @ a.sum(1)),
    )


def test_disabled_adapter_adds_nothing() -> None:
    wrapped = adapted(tiny_model())
    patch_lora(wrapped)
    layer, width = layers(wrapped)[0]
    x = torch.ones(1, width)
    with wrapped.disable_adapter():
        torch.testing.assert_close(layer(x), layer.base_layer(x))
    assert not torch.allclose(layer(x), layer.base_layer(x))
