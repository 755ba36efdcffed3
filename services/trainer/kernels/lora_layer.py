"""LoRA on a frozen projection in fewer passes than PEFT's layers, with the same values and
gradients.

    y = x W' + bias + s D(x) A' B'        D is dropout, ' transposes
                                          Hu et al. 2021, arXiv:2106.09685, section 4.1

PEFT still defines, holds and saves the adapter; only the computation of its layers is replaced. A
projection is one node of the autograd graph. The adapter's output is added in place to the base's
output. The input is kept for the backward pass in the precision of the base's product, where PEFT
keeps an fp32 copy per projection.
"""

from types import MethodType
from typing import Any

import torch
from peft.tuners.lora import layer as dense
from torch.autograd.function import once_differentiable


def patch_lora(wrapped: Any) -> None:
    """Replace the forward pass of a PEFT model's plain LoRA layers. The patch ends when the adapter
    is unloaded.
    """
    for module in wrapped.modules():
        if isinstance(module, dense.LoraLayer) and type(module).__name__ in (
            "Linear",
            "Linear4bit",
        ):
            vars(module)["forward"] = MethodType(_forward, module)  # of this one layer


def cast_4bit_output(model: Any) -> None:
    """Make 4-bit projections return the autocast precision under autocast, as other projections do.

    Unpatched they return the precision of their input, which is fp32 here.
    """
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            vars(module)["forward"] = MethodType(_cast_forward, module)


def _cast_forward(module: Any, x: torch.Tensor) -> torch.Tensor:
    cast = x.to(module.compute_dtype) if torch.is_autocast_enabled(x.device.type) else x
    output: torch.Tensor = type(module).forward(module, cast)
    return output


def _forward(layer: Any, x: torch.Tensor) -> torch.Tensor:
    if layer.disable_adapters or layer.merged:
        unadapted: torch.Tensor = type(layer).forward(layer, x)
        return unadapted
    (name,) = layer.active_adapters
    autocast = torch.is_autocast_enabled(x.device.type)
    compute_dtype = getattr(layer.base_layer, "compute_dtype", None) or (
        torch.get_autocast_dtype(x.device.type) if autocast else x.dtype
    )
    dropout = (
        layer.lora_dropout[name].p
        if layer.training and isinstance(layer.lora_dropout[name], torch.nn.Dropout)
        else 0.0
    )
    a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
    if x.device.type == "cpu" and not torch.is_grad_enabled() and not dropout:
        return _forward_without_gradient(
            x.to(compute_dtype), a, b, layer.base_layer, layer.scaling[name]
        ).to(compute_dtype if autocast else x.dtype)
    flat: torch.Tensor = _Projection.apply(
        x.flatten(0, -2).to(compute_dtype), a, b, layer.base_layer, layer.scaling[name], dropout
    )
    output = flat.view(*x.shape[:-1], flat.shape[-1])
    return output if autocast else output.to(x.dtype)


def _forward_without_gradient(
    x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, base: Any, scale: float
) -> torch.Tensor:
    """Forward pass for evaluation: the adapter's output is computed at least in fp32 and rounded
    once.
    """
    exact = torch.promote_types(x.dtype, torch.float32)
    output: torch.Tensor = base(x)
    low = (x.to(exact) @ a.to(exact).t()).flatten(0, -2)
    return (
        output.to(exact).flatten(0, -2).addmm_(low, b.to(exact).t(), alpha=scale).view(output.shape)
    )


class _Projection(torch.autograd.Function):
    """x [tokens, inputs], A [rank, inputs], B [outputs, rank] to y [tokens, outputs]. The base has
    no gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        a: torch.Tensor,
        b: torch.Tensor,
        base: Any,
        scale: float,
        dropout: float,
    ) -> torch.Tensor:
        output: torch.Tensor = base(x)
        kept, mask = torch.native_dropout(x, dropout, True) if dropout else (x, None)
        a_cast, b_cast = a.to(x.dtype), b.to(x.dtype)
        low = kept @ a_cast.t()
        output.addmm_(low, b_cast.t(), alpha=scale)
        ctx.save_for_backward(kept, low, mask, a_cast, b_cast)
        ctx.base, ctx.scale, ctx.dropout, ctx.dtypes = base, scale, dropout, (a.dtype, b.dtype)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        kept, low, mask, a, b = ctx.saved_tensors
        low_gradient = (gradient @ b).mul_(ctx.scale)
        a_gradient, b_gradient = low_gradient.t() @ kept, (gradient.t() @ low).mul_(ctx.scale)
        x_gradient = None
        if ctx.needs_input_grad[0]:
            x_gradient = gradient @ _dense_weight(ctx.base, gradient.dtype)
            if mask is not None:
                x_gradient += (low_gradient @ a).mul_(mask).mul_(1 / (1 - ctx.dropout))
            else:
                x_gradient.addmm_(low_gradient, a)
        return (
            x_gradient,
            a_gradient.to(ctx.dtypes[0]),
            b_gradient.to(ctx.dtypes[1]),
            None,
            None,
            None,
        )


def _dense_weight(base: Any, dtype: torch.dtype) -> torch.Tensor:
    """Return a projection's weights as [outputs, inputs]; 4-bit weights are dequantised."""
    weight = base.weight
    if hasattr(weight, "quant_state"):
        from bitsandbytes.functional import dequantize_4bit

        weight = dequantize_4bit(weight.data, weight.quant_state)
    dense: torch.Tensor = weight.to(dtype)
    return dense
