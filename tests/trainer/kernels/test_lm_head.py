"""Chunked log-likelihoods and their gradients match those of the full softmax."""

import pytest
import torch

from services.trainer.kernels import lm_head
from services.trainer.kernels.lm_head import token_log_likelihoods

TOKENS, WIDTH, VOCABULARY = 23, 8, 40


def random_inputs(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    targets = torch.randint(VOCABULARY, (TOKENS,))
    return (
        torch.randn(TOKENS, WIDTH, dtype=dtype, requires_grad=True),
        torch.randn(VOCABULARY, WIDTH, dtype=dtype),
        targets,
    )


def values_and_gradients(
    values: torch.Tensor, hidden: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    weighting = torch.linspace(-1, 2, TOKENS, dtype=values.dtype)
    (gradients,) = torch.autograd.grad(values, hidden, weighting)
    return values.detach(), gradients


@pytest.mark.parametrize("at_a_time", [1, 5, 1000])
def test_values_and_gradients_match_full_softmax(
    at_a_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lm_head, "lm_head_chunk_tokens", lambda vocabulary: at_a_time)
    hidden, weight, targets = random_inputs(torch.float64)
    whole = (hidden @ weight.t()).log_softmax(-1)[torch.arange(TOKENS), targets]
    torch.testing.assert_close(
        values_and_gradients(token_log_likelihoods(hidden, weight, targets), hidden),
        values_and_gradients(whole, hidden),
    )


def test_16_bit_inputs_give_fp32_values() -> None:
    """bf16 has 8 bits of precision: a product of width 8 is off by a few hundredths."""
    hidden, weight, targets = random_inputs(torch.float64)
    exact, exact_gradients = values_and_gradients(
        token_log_likelihoods(hidden, weight, targets), hidden
    )
    halved = hidden.detach().bfloat16().requires_grad_(True)
    values, gradients = values_and_gradients(
        token_log_likelihoods(halved, weight.bfloat16(), targets), halved
    )
    assert (values.dtype, gradients.dtype) == (torch.float32, torch.bfloat16)
    torch.testing.assert_close(values.double(), exact, rtol=0.05, atol=0.05)
    assert float((gradients.double() - exact_gradients).norm()) < 0.02 * float(
        exact_gradients.norm()
    )


def test_large_logits_give_finite_values() -> None:
    hidden, weight, targets = random_inputs(torch.float32)
    values, gradients = values_and_gradients(
        token_log_likelihoods(hidden, weight * 1e4, targets), hidden
    )
    assert values.isfinite().all()
    assert gradients.isfinite().all()


def test_trainable_head_is_rejected() -> None:
    hidden, weight, targets = random_inputs(torch.float32)
    with pytest.raises(AssertionError, match="frozen"):
        token_log_likelihoods(hidden, weight.requires_grad_(True), targets)
