"""Log-likelihoods of tokens from what stands before them, without a matrix of tokens times
vocabulary in memory.

The head of a base is frozen, so the gradient of a log-likelihood is known in the forward pass but
for a factor: with logits z = h W',

    log p(t) = z_t - log sum exp z        d log p(t) / dh = W_t - softmax(z) W

It is computed for some tokens at a time, while their logits are at hand. Cross-entropy as PyTorch
has it keeps all logits in fp32, and twice as much again in its backward pass.
"""

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from services.trainer.machine.memory import lm_head_chunk_tokens


def token_log_likelihoods(
    hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """[tokens, width], [vocabulary, width] and [tokens] to [tokens], in fp32 at least."""
    assert not head.requires_grad, "the base is frozen"
    found: torch.Tensor = _LogLikelihoods.apply(hidden, head, targets)
    return found


class _LogLikelihoods(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        device = hidden.device.type
        dtype = (
            torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        )
        weight = head.to(dtype)
        exact = torch.promote_types(dtype, torch.float32)
        size = lm_head_chunk_tokens(len(head))
        found = torch.empty(len(hidden), dtype=exact, device=hidden.device)
        slopes = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for start in range(0, len(hidden), size):
            part = slice(start, start + size)
            logits = (hidden[part].to(dtype) @ weight.t()).to(exact)
            chosen = logits.gather(1, targets[part, None])
            highest = logits.amax(1, keepdim=True)
            powers = logits.sub_(highest).exp_()
            total = powers.sum(1, keepdim=True)
            found[part] = (chosen - highest - total.log())[:, 0]
            if slopes is not None:
                slopes[part] = weight[targets[part]] - (powers.to(dtype) @ weight) / total
        ctx.save_for_backward(slopes)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (slopes,) = ctx.saved_tensors
        return (slopes * gradient[:, None]).to(slopes.dtype), None, None
