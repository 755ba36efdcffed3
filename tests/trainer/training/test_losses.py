"""Losses compared with hand calculations, and their direction."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from services.trainer.training.losses import dpo, kto, reference_point, side_weights, supervised


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_supervised_loss_is_a_weighted_mean_per_token() -> None:
    """Answers of 2 and 3 tokens with log-likelihoods -4 and -3, weights 1 and 0.5: (4 + 1.5) / (2 +
    1.5) nats per token.
    """
    loss = supervised(
        torch.tensor([-4.0, -3.0]), torch.tensor([1.0, 0.5]), total_weight=1.0 * 2 + 0.5 * 3
    )
    assert float(loss) == pytest.approx(5.5 / 3.5)


def test_equal_weights_do_not_scale_the_loss() -> None:
    """With equal weights the loss is the plain mean for any weight."""
    likelihoods = torch.tensor([-4.0, -3.0])
    losses = [
        float(supervised(likelihoods, torch.full((2,), weight), total_weight=weight * 5))
        for weight in (1.0, 0.6)
    ]
    assert losses == pytest.approx([7 / 5, 7 / 5])


def test_dpo_matches_hand_calculation() -> None:
    """A model equal to the reference has no preference: log 2. With beta 0.1, chosen 3 nats
    likelier than in the reference and rejected 2 less likely: -log sigma(0.1 (3 + 2)) = log(1 +
    e^-0.5). The gradient by the chosen log-ratio is -beta sigma(-0.5).
    """
    chosen, rejected = (
        torch.tensor([0.0, 3.0], requires_grad=True),
        torch.tensor([0.0, -2.0], requires_grad=True),
    )
    losses = dpo(chosen, rejected, beta=0.1)
    assert losses.tolist() == pytest.approx([math.log(2), math.log(1 + math.exp(-0.5))])
    by_chosen, by_rejected = torch.autograd.grad(losses.sum(), (chosen, rejected))
    assert by_chosen.tolist() == pytest.approx([-0.1 * 0.5, -0.1 * sigma(-0.5)])
    assert by_rejected.tolist() == pytest.approx([0.1 * 0.5, 0.1 * sigma(-0.5)])


def test_kto_matches_hand_calculation() -> None:
    """beta 0.1, z = 1: a liked answer 3 nats likelier costs 1 - sigma(0.2), an equally likelier
    disliked one 1 - sigma(-0.2). The gradients by the log-ratio are -beta s (1 - s) and +beta s (1
    - s), s = sigma(0.2).
    """
    ratios = torch.tensor([3.0, 3.0], requires_grad=True)
    losses = kto(ratios, torch.tensor([True, False]), torch.tensor(1.0), beta=0.1)
    assert losses.tolist() == pytest.approx([1 - sigma(0.2), 1 - sigma(-0.2)])
    (gradient,) = torch.autograd.grad(losses.sum(), ratios)
    slope = 0.1 * sigma(0.2) * (1 - sigma(0.2))
    assert gradient.tolist() == pytest.approx([-slope, slope])


def test_reference_point_is_a_clamped_mean_without_gradient() -> None:
    ratios = torch.tensor([3.0, -1.0], requires_grad=True)
    assert float(reference_point(ratios)) == 1.0
    assert not reference_point(ratios).requires_grad
    assert float(reference_point(-ratios)) == 0.0
    assert float(reference_point(torch.zeros(0))) == 0.0


@given(st.lists(st.booleans(), min_size=1, max_size=50))
def test_both_sides_have_equal_total_weight(desirable: list[bool]) -> None:
    """The mean weight is 1, so the loss does not grow with the imbalance of the sides."""
    liked_weight, disliked_weight = side_weights(desirable)
    assert sum(liked_weight if liked else disliked_weight for liked in desirable) == pytest.approx(
        len(desirable)
    )
    if len(set(desirable)) == 2:
        assert liked_weight * sum(desirable) == pytest.approx(
            disliked_weight * (len(desirable) - sum(desirable))
        )


@given(
    st.floats(-50, 50), st.floats(-50, 50), st.floats(0, 20), st.floats(0.01, 1), st.floats(0.1, 5)
)
def test_losses_fall_towards_the_preferred_answer(
    chosen_ratio: float, rejected_ratio: float, point: float, beta: float, increase: float
) -> None:
    def dpo_loss(chosen: float, rejected: float) -> float:
        return float(
            dpo(
                torch.tensor([chosen], dtype=torch.double),
                torch.tensor([rejected], dtype=torch.double),
                beta,
            )[0]
        )

    def kto_loss(ratio: float, liked: bool) -> float:
        return float(
            kto(
                torch.tensor([ratio], dtype=torch.double),
                torch.tensor([liked]),
                torch.tensor(point),
                beta,
            )[0]
        )

    assert (
        dpo_loss(chosen_ratio + increase, rejected_ratio)
        <= dpo_loss(chosen_ratio, rejected_ratio)
        <= dpo_loss(chosen_ratio, rejected_ratio + increase)
    )
    assert kto_loss(chosen_ratio + increase, True) <= kto_loss(chosen_ratio, True)
    assert kto_loss(chosen_ratio, False) <= kto_loss(chosen_ratio + increase, False)
