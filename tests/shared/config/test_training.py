"""Training configurations: ranges and defaults by lane; values of old events stay readable."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.config.training import LANE_DEFAULTS, LANE_RANGES, TrainingConfig
from shared.errors import Misconfigured
from shared.events.hyperparameters import Configuration, Lane

LANES: tuple[Lane, ...] = ("adaptive", "master")


@pytest.mark.parametrize("lane", LANES)
def test_the_defaults_of_a_lane_are_in_its_ranges(lane: Lane) -> None:
    """Defaults are not validated on their own, so the test passes them like a file's values."""
    assert TrainingConfig.model_validate(TrainingConfig(lane=lane).model_dump()) == TrainingConfig(
        lane=lane
    )


def test_every_number_has_a_range_in_every_lane() -> None:
    """Except the seed, which has no range."""
    numbers = {
        name
        for name, field in Configuration.model_fields.items()
        if field.annotation in (int, float)
    }
    assert numbers - {"seed"} == set(LANE_RANGES["adaptive"]) == set(LANE_RANGES["master"])
    assert {name for lane in LANES for name in LANE_DEFAULTS[lane]} <= set(
        Configuration.model_fields
    )


def test_each_lane_allows_the_required_values() -> None:
    """The fast lane: a rate of 1e-5, rank 4 with alpha 8. The deep one: rank 8 to 64, alpha 16 to
    128, rates from 2e-5 to 1e-3.
    """
    TrainingConfig(learning_rate=1e-5, rank=4, alpha=8)
    for rank, alpha, rate in ((8, 16, 2e-5), (64, 128, 1e-3)):
        TrainingConfig(lane="master", rank=rank, alpha=alpha, learning_rate=rate)
    deep = TrainingConfig(lane="master")
    assert (deep.targets, deep.lineage) == (("q_proj", "k_proj", "v_proj", "o_proj"), "fresh")
    assert (deep.max_gradient_norm, deep.warmup_ratio, deep.save_steps) == (0.3, 0.05, 100)
    assert deep.cycles > 1, "a cosine with restarts"
    assert [TrainingConfig(batch_size=size).accumulation for size in (1, 2, 3, 8, 10)] == [
        8,
        4,
        2,
        1,
        1,
    ]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"lane": "master", "learning_rate": 1e-5},
            "learning_rate 1e-05 is outside 2e-05 to 0.001, the range of the lane master",
        ),
        ({"lane": "master", "rank": 4}, "rank 4 is outside 8 to 64, the range of the lane master"),
        ({"rank": 3}, "rank 3 is outside 4 to 64, the range of the lane adaptive"),
        (
            {"learning_rate": float("nan")},
            "learning_rate nan is outside 1e-05 to 0.005, the range of the lane adaptive",
        ),
        ({"batch_size": 0}, "batch_size 0 is outside 1 to 256, the range of the lane adaptive"),
        ({"epochs": 51}, "epochs 51 is outside 1 to 50, the range of the lane adaptive"),
        ({"targets": ()}, "targets"),
        ({"layers": 0}, "layers"),
    ],
)
def test_an_error_names_field_value_range_and_lane(
    fields: dict[str, object], expected: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        TrainingConfig.model_validate(fields)
    assert expected in str(caught.value)


@given(st.sampled_from(LANES), st.sampled_from(sorted(LANE_RANGES["master"])), st.data())
def test_ranges_are_inclusive(lane: Lane, name: str, data: st.DataObject) -> None:
    least, most = LANE_RANGES[lane][name]
    whole = Configuration.model_fields[name].annotation is int
    inside = data.draw(st.integers(int(least), int(most)) if whole else st.floats(least, most))
    for value in (least, most, inside):
        TrainingConfig.model_validate({"lane": lane, name: value})
    beyond = data.draw(st.integers(min_value=1, max_value=10**6))
    for value in (least - beyond, most + beyond):
        with pytest.raises(ValidationError, match=name):
            TrainingConfig.model_validate({"lane": lane, name: value})


def test_nf4_turns_gradient_checkpointing_on_by_default() -> None:
    assert TrainingConfig(quantisation="nf4").gradient_checkpointing
    assert not TrainingConfig(
        quantisation="nf4", gradient_checkpointing=False
    ).gradient_checkpointing


def test_events_accept_values_outside_the_present_ranges() -> None:
    """Rank 1 was legal once, as was rank 4 in the master lane. Old events do not name their lane
    here.
    """
    configuration = Configuration.model_validate(
        {"rank": 1, "alpha": 1, "learning_rate": 5e-3, "dropout": 0.9}
    )
    assert (configuration.rank, configuration.lane) == (1, "adaptive")
    with pytest.raises(ValidationError):
        TrainingConfig.model_validate(configuration.model_dump())


def test_single_values_of_a_configuration_are_replaced() -> None:
    lane = TrainingConfig(lane="master", epochs=5)
    changed = lane.with_values({"rank": 32, "quantisation": "nf4"})
    assert (changed.epochs, changed.rank, changed.gradient_checkpointing) == (5, 32, True)
    assert lane.with_values({}) == lane


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"rank": 4}, "rank 4 is outside 8 to 64, the range of the lane master"),
        ({"rnak": 16}, "rnak: no such hyperparameter; did you mean rank?"),
        ({"zzz": 16}, "zzz: no such hyperparameter; expected one of rank, alpha, dropout"),
        ({"epochs": "many"}, "epochs: Input should be a valid integer"),
        ({"targets": []}, "targets: Tuple should have at least 1 item"),
        ({"lane": "adaptive"}, "lane: it is no hyperparameter"),
    ],
)
def test_a_wrong_value_is_refused_by_name(values: dict[str, object], problem: str) -> None:
    with pytest.raises(Misconfigured, match=re.escape(problem)):
        TrainingConfig(lane="master").with_values(values)


def test_named_settings_are_those_that_were_given() -> None:
    """Nulls and values equal to the default were given too."""
    given_values = {"lane": "master", "rank": 16, "layers": None}
    config = TrainingConfig.model_validate(given_values)
    assert config.named == {"rank", "layers"}
    assert config.with_values({"epochs": 2}).named == {"rank", "layers", "epochs"}
    assert TrainingConfig().named == frozenset()
    assert TrainingConfig(quantisation="nf4").named == {"quantisation"}


def test_former_defaults_fill_what_was_not_named() -> None:
    """These apply to runs that earlier versions have planned, and to digests of model files."""
    former = TrainingConfig(rank=4, quantisation="nf4").with_former_defaults()
    assert (former.rank, former.epochs, former.batch_size, former.replay) == (4, 2, 10, 50)
    assert (former.dpo_pairs, former.layers, former.gradient_checkpointing) == (30, None, True)
    assert former.targets == ("q_proj", "k_proj", "v_proj", "o_proj")
    master = TrainingConfig(lane="master")
    assert master.with_former_defaults() == master
