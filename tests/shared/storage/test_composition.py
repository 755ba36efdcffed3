from hypothesis import given
from hypothesis import strategies as st

from shared.events import Message
from shared.storage.composition import composition_of, source_of
from shared.storage.snapshots import Example

EXAMPLES = st.lists(
    st.builds(
        Example,
        feedback_id=st.sampled_from(["a", "/shop|a", "/shop|b", "/app|c"]),
        messages=st.sampled_from(
            [(Message(role="user", content=text),) for text in ("x", "X ", "y")]
        ),
        answer=st.sampled_from(["yes", "yes ", "no"]),
        feedback_type=st.sampled_from(["correction", "thumbs_up"]),
        reward=st.floats(-1, 1),
        quality=st.floats(0, 1),
        model_version=st.sampled_from([None, "v1", "v2"]),
        user_id=st.sampled_from([None, "ann", "bob"]),
    ),
    max_size=12,
)


@given(EXAMPLES, st.data())
def test_the_order_of_examples_does_not_matter(
    examples: list[Example], data: st.DataObject
) -> None:
    assert composition_of(data.draw(st.permutations(examples))) == composition_of(examples)


@given(EXAMPLES)
def test_every_example_counts_once_per_statistic(examples: list[Example]) -> None:
    composition = composition_of(examples)
    assert composition.examples == len(examples)
    for counts in (composition.feedback_types, composition.model_versions, composition.sources):
        assert sum(counts.values()) == len(examples)
    assert (composition.reward is None) is (not examples)
    assert composition.prompts <= len(examples) >= composition.answers
    assert (
        composition.users.distinct * composition.users.largest_share * len(examples)
        >= len(examples) - composition.users.unnamed - 1e-9
    )


def test_a_source_precedes_the_bar() -> None:
    assert [source_of(name) for name in ("/shop|1", "1", "/shop|1|2")] == ["/shop", "", "/shop"]
