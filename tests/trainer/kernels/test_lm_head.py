"""Log-likelihoods without all logits are those of the whole softmax, and so are their gradients."""

import pytest
import torch

from services.trainer.kernels import lm_head as head
from services.trainer.kernels.lm_head import token_log_likelihoods

TOKENS, WIDTH, VOCABULARY = 23, 8, 40


def drawn(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    targets = torch.randint(VOCABULARY, (TOKENS,))
    return (
        torch.randn(TOKENS, WIDTH, dtype=dtype, requires_grad=True),
        torch.randn(VOCABULARY, WIDTH, dtype=dtype),
        targets,
    )


def values_and_slopes(
    found: torch.Tensor, hidden: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    (slopes,) = torch.autograd.grad(found, hidden, torch.linspace(-1, 2, TOKENS, dtype=found.dtype))
    return found.detach(), slopes


@pytest.mark.parametrize("at_a_time", [1, 5, 1000])
def test_they_are_those_of_the_whole_softmax(
    at_a_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "tokens_at_a_time", lambda vocabulary: at_a_time)
    hidden, weight, targets = drawn(torch.float64)
    whole = (hidden @ weight.t()).log_softmax(-1)[torch.arange(TOKENS), targets]
    torch.testing.assert_close(
        values_and_slopes(token_log_likelihoods(hidden, weight, targets), hidden),
        values_and_slopes(whole, hidden),
    )


def test_a_base_in_16_bits_has_values_in_32() -> None:
    """8 bits: a product of width 8 is off by some hundredths."""
    hidden, weight, targets = drawn(torch.float64)
    exact, exact_slopes = values_and_slopes(token_log_likelihoods(hidden, weight, targets), hidden)
    halved = hidden.detach().bfloat16().requires_grad_(True)
    found, slopes = values_and_slopes(
        token_log_likelihoods(halved, weight.bfloat16(), targets), halved
    )
    assert (found.dtype, slopes.dtype) == (torch.float32, torch.bfloat16)
    torch.testing.assert_close(found.double(), exact, rtol=0.05, atol=0.05)
    assert float((slopes.double() - exact_slopes).norm()) < 0.02 * float(exact_slopes.norm())


def test_far_logits_are_finite() -> None:
    hidden, weight, targets = drawn(torch.float32)
    found, slopes = values_and_slopes(token_log_likelihoods(hidden, weight * 1e4, targets), hidden)
    assert found.isfinite().all()
    assert slopes.isfinite().all()


def test_a_head_that_learns_is_refused() -> None:
    hidden, weight, targets = drawn(torch.float32)
    with pytest.raises(AssertionError, match="frozen"):
        token_log_likelihoods(hidden, weight.requires_grad_(True), targets)
