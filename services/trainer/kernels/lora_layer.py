"""LoRA on a frozen projection in fewer passes than PEFT's layers take, for the same values and
gradients.

    y = x W' + bias + s D(x) A' B'        Hu et al. 2021, arXiv:2106.09685, section 4.1; D is dropout, ' transposes

PEFT says what an adapter is, holds its weights and writes them; only how its layers compute is
replaced. A projection is one node of the graph: what the adapter adds is added to the base's answer
in place, and what comes in is kept for the backward pass in the precision in which the base
multiplies, where PEFT keeps a copy in fp32 for each projection.
"""

from types import MethodType
from typing import Any

import torch
from peft.tuners.lora import layer as dense
from torch.autograd.function import once_differentiable


def patch_lora(wrapped: Any) -> None:
    """Have the LoRA layers of a PEFT model compute as above, where they are plain ones. It ends
    when the adapter is taken off.
    """
    for module in wrapped.modules():
        if isinstance(module, dense.LoraLayer) and type(module).__name__ in (
            "Linear",
            "Linear4bit",
        ):
            vars(module)["forward"] = MethodType(_forward, module)  # of this one layer


def cast_4bit_output(model: Any) -> None:
    """Have projections in 4 bits answer under autocast in its precision, as any other projection
    does; by themselves they answer in that in which they were asked, which around them is fp32.
    """
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            vars(module)["forward"] = MethodType(_cast_forward, module)


def _cast_forward(module: Any, x: torch.Tensor) -> torch.Tensor:
    asked = x.to(module.compute_dtype) if torch.is_autocast_enabled(x.device.type) else x
    found: torch.Tensor = type(module).forward(module, asked)
    return found


def _forward(layer: Any, x: torch.Tensor) -> torch.Tensor:
    if layer.disable_adapters or layer.merged:
        off: torch.Tensor = type(layer).forward(layer, x)
        return off
    (name,) = layer.active_adapters
    autocast = torch.is_autocast_enabled(x.device.type)
    wanted = getattr(layer.base_layer, "compute_dtype", None) or (
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
            x.to(wanted), a, b, layer.base_layer, layer.scaling[name]
        ).to(wanted if autocast else x.dtype)
    flat: torch.Tensor = _Projection.apply(
        x.flatten(0, -2).to(wanted), a, b, layer.base_layer, layer.scaling[name], dropout
    )
    found = flat.view(*x.shape[:-1], flat.shape[-1])
    return found if autocast else found.to(x.dtype)


def _forward_without_gradient(
    x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, base: Any, scale: float
) -> torch.Tensor:
    """Without a gradient nothing is learned but much is decided: what the adapter adds is computed
    in fp32 at least, and rounded once.
    """
    exact = torch.promote_types(x.dtype, torch.float32)
    found: torch.Tensor = base(x)
    low = (x.to(exact) @ a.to(exact).t()).flatten(0, -2)
    return (
        found.to(exact).flatten(0, -2).addmm_(low, b.to(exact).t(), alpha=scale).view(found.shape)
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
        found: torch.Tensor = base(x)
        kept, mask = torch.native_dropout(x, dropout, True) if dropout else (x, None)
        a_there, b_there = a.to(x.dtype), b.to(x.dtype)
        low = kept @ a_there.t()
        found.addmm_(low, b_there.t(), alpha=scale)
        ctx.save_for_backward(kept, low, mask, a_there, b_there)
        ctx.base, ctx.scale, ctx.dropout, ctx.dtypes = base, scale, dropout, (a.dtype, b.dtype)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        kept, low, mask, a, b = ctx.saved_tensors
        of_low = (gradient @ b).mul_(ctx.scale)
        of_a, of_b = of_low.t() @ kept, (gradient.t() @ low).mul_(ctx.scale)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = gradient @ _dense_weight(ctx.base, gradient.dtype)
            if mask is not None:
                of_x += (of_low @ a).mul_(mask).mul_(1 / (1 - ctx.dropout))
            else:
                of_x.addmm_(of_low, a)
        return of_x, of_a.to(ctx.dtypes[0]), of_b.to(ctx.dtypes[1]), None, None, None


def _dense_weight(base: Any, dtype: torch.dtype) -> torch.Tensor:
    """A projection's weights, [outputs, inputs]; those in 4 bits are spread out."""
    weight = base.weight
    if hasattr(weight, "quant_state"):
        from bitsandbytes.functional import dequantize_4bit

        weight = dequantize_4bit(weight.data, weight.quant_state)
    found: torch.Tensor = weight.to(dtype)
    return found
