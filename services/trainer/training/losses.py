"""What a step makes smaller. Pure functions of log-likelihoods: one number per answer, summed over
its tokens, in nats.

A log-ratio is log pi(y|x) - log pi_ref(y|x): the answer's log-likelihood under the model in
training, minus that under the reference, which is the model as the run found it.

    supervised   - sum w log pi(y|x) / sum w |y|                        cross-entropy per answer token, examples weighted by their quality
    dpo          - log sigma(beta (r_chosen - r_rejected))              Rafailov et al. 2023, arXiv:2305.18290, equation 7
    kto          lambda (1 - sigma(beta (r - z)))   desirable           Ethayarajh et al. 2024, arXiv:2402.01306, equation 8
                 lambda (1 - sigma(beta (z - r)))   undesirable

z is the reference point: an estimate of KL(pi || pi_ref) from prompts with answers that belong to
other prompts, never below 0, through which no gradient flows (there, section 4.1). A run's loss is
the sum of those that its lessons call for. The supervised part beside DPO keeps the chosen answer
itself from becoming less likely (Pang et al. 2024, arXiv:2404.19733).
"""

from collections.abc import Sequence

import torch
from torch.nn import functional


def supervised(
    likelihoods: torch.Tensor, weights: torch.Tensor, total_weight: float
) -> torch.Tensor:
    """A part of the weighted mean over answer tokens; `whole` is the sum of weight times tokens
    over all of the step.
    """
    return -(weights * likelihoods).sum() / total_weight


def dpo(chosen: torch.Tensor, rejected: torch.Tensor, beta: float) -> torch.Tensor:
    """The loss of each pair, from the log-ratios of both answers."""
    return -functional.logsigmoid(beta * (chosen - rejected))


def kto(
    ratios: torch.Tensor, desirable: torch.Tensor, reference_point: torch.Tensor, beta: float
) -> torch.Tensor:
    """The loss of each judged answer, not yet weighted by its side's lambda; `desirable` is true or
    false.
    """
    gains = torch.where(desirable, ratios - reference_point, reference_point - ratios)
    return 1 - torch.sigmoid(beta * gains)


def reference_point(mismatched: torch.Tensor) -> torch.Tensor:
    """z, from the log-ratios of mismatched answers; 0 without any."""
    return mismatched.detach().mean().clamp(min=0) if len(mismatched) else mismatched.new_zeros(())


def side_weights(desirable: Sequence[bool]) -> tuple[float, float]:
    """lambda of the desirable and of the undesirable answers: both sides weigh the same together,
    and the mean is 1.

    The ratio lambda_D n_D / (lambda_U n_U) is 1, the lower end of what the paper recommends
    (section 4.2).
    """
    sides = len(set(desirable))
    yes, no = sum(desirable), len(desirable) - sum(desirable)
    return len(desirable) / (sides * yes) if yes else 1.0, len(desirable) / (
        sides * no
    ) if no else 1.0
