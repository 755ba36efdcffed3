"""Log-likelihoods of tokens without a tokens x vocabulary matrix in memory.

The LM head is frozen, so the gradient of a log-likelihood is known in the forward pass up to a
factor: with logits z = h W',

    log p(t) = z_t - log sum exp z        d log p(t) / dh = W_t - softmax(z) W

It is computed in chunks of tokens, together with their logits. PyTorch's cross-entropy keeps all
logits in fp32, and twice as much again in its backward pass.
"""

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from services.trainer.machine.memory import lm_head_chunk_tokens


def token_log_likelihoods(
    hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Compute the log-likelihood of each target token.

    Takes hidden states [tokens, width], the head [vocabulary, width] and targets [tokens]. Returns
    [tokens], at least fp32.
    """
    assert not head.requires_grad, "the base is frozen"
    values: torch.Tensor = _LogLikelihoods.apply(hidden, head, targets)
    return values


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
        chunk_tokens = lm_head_chunk_tokens(len(head))
        values = torch.empty(len(hidden), dtype=exact, device=hidden.device)
        slopes = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for start in range(0, len(hidden), chunk_tokens):
            chunk = slice(start, start + chunk_tokens)
            logits = (hidden[chunk].to(dtype) @ weight.t()).to(exact)
            target_logits = logits.gather(1, targets[chunk, None])
            highest = logits.amax(1, keepdim=True)
            exponentials = logits.sub_(highest).exp_()
            total = exponentials.sum(1, keepdim=True)
            values[chunk] = (target_logits - highest - total.log())[:, 0]
            if slopes is not None:
                slopes[chunk] = weight[targets[chunk]] - (exponentials.to(dtype) @ weight) / total
        ctx.save_for_backward(slopes)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (slopes,) = ctx.saved_tensors
        return (slopes * gradient[:, None]).to(slopes.dtype), None, None
