import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.events import RewardPart
from shared.reward import mean_reward

parts = st.lists(
    st.builds(
        lambda value, weight: RewardPart(name="p", value=value, weight=weight),
        st.floats(-1, 1),
        st.floats(0, 5),
    ),
    max_size=6,
)


def test_the_reward_is_the_weighted_mean_of_its_parts() -> None:
    """(3·0.8 - 1·1 - 0.5·1) / 4.5 = 0.9 / 4.5."""
    given_parts = [
        RewardPart(name=str(weight), value=value, weight=weight)
        for value, weight in ((0.8, 3), (-1, 1), (-1, 0.5))
    ]
    assert mean_reward(given_parts) == pytest.approx(0.2)


def test_without_parts_or_weight_the_reward_is_zero() -> None:
    assert mean_reward([]) == mean_reward([RewardPart(name="action", value=1, weight=0)]) == 0.0


@given(parts)
def test_a_reward_is_between_its_parts_in_any_order(some: list[RewardPart]) -> None:
    values = [part.value for part in some if part.weight] or [0.0]
    assert -1 <= mean_reward(some) <= 1
    assert min(values) - 1e-9 <= mean_reward(some) <= max(values) + 1e-9
    assert mean_reward(some[::-1]) == pytest.approx(mean_reward(some))
