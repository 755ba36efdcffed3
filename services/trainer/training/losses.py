"""Losses of a training step. Pure functions of log-likelihoods: one number per answer, summed over
its tokens, in nats.

A log-ratio is log pi(y|x) - log pi_ref(y|x): the answer's log-likelihood under the model in
training, minus that under the reference, which is the model at the start of the run.

    supervised   - sum w log pi(y|x) / sum w |y|
                 cross-entropy per answer token, examples weighted by their quality
    dpo          - log sigma(beta (r_chosen - r_rejected))
                 Rafailov et al. 2023, arXiv:2305.18290, equation 7
    kto          lambda (1 - sigma(beta (r - z)))   desirable
                 lambda (1 - sigma(beta (z - r)))   undesirable
                 Ethayarajh et al. 2024, arXiv:2402.01306, equation 8

z is the reference point: an estimate of KL(pi || pi_ref) from prompts paired with answers to other
prompts, at least 0, without gradient (ibid., section 4.1). A run's loss is the sum of the losses of
its objectives. The supervised term next to DPO keeps the chosen answer itself from becoming less
likely (Pang et al. 2024, arXiv:2404.19733).
"""

from collections.abc import Sequence

import torch
from torch.nn import functional


def supervised(
    likelihoods: torch.Tensor, weights: torch.Tensor, total_weight: float
) -> torch.Tensor:
    """Compute one part of the weighted mean over answer tokens. `total_weight` is the sum of weight
    x tokens over the whole step.
    """
    return -(weights * likelihoods).sum() / total_weight


def dpo(chosen: torch.Tensor, rejected: torch.Tensor, beta: float) -> torch.Tensor:
    """Compute the loss of each pair from the log-ratios of both answers."""
    return -functional.logsigmoid(beta * (chosen - rejected))


def kto(
    ratios: torch.Tensor, desirable: torch.Tensor, reference_point: torch.Tensor, beta: float
) -> torch.Tensor:
    """Compute the loss of each judged answer, before weighting by its side's lambda. `desirable` is
    a boolean tensor.
    """
    gains = torch.where(desirable, ratios - reference_point, reference_point - ratios)
    return 1 - torch.sigmoid(beta * gains)


def reference_point(mismatched: torch.Tensor) -> torch.Tensor:
    """Compute z from the log-ratios of mismatched answers; 0 if there are none."""
    return mismatched.detach().mean().clamp(min=0) if len(mismatched) else mismatched.new_zeros(())


def side_weights(desirable: Sequence[bool]) -> tuple[float, float]:
    """Compute lambda for desirable and for undesirable answers: both sides have the same total
    weight, and the mean weight is 1.

    The ratio lambda_D n_D / (lambda_U n_U) is 1, the lower end of the paper's recommendation
    (section 4.2).
    """
    sides = len(set(desirable))
    desirable_count, undesirable_count = sum(desirable), len(desirable) - sum(desirable)
    return (
        len(desirable) / (sides * desirable_count) if desirable_count else 1.0,
        len(desirable) / (sides * undesirable_count) if undesirable_count else 1.0,
    )
