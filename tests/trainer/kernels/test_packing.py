"""A packed row contains every example completely, and each shared prefix once."""

from hypothesis import given
from hypothesis import strategies as st

from services.trainer.data.tokenization import EncodedExample
from services.trainer.kernels.packing import PackedRow, PrefixGroup, pack


@st.composite
def encoded_examples(draw: st.DrawFn) -> EncodedExample:
    """Examples over two token ids, so that prefixes are often shared."""
    ids = draw(st.lists(st.integers(0, 1), min_size=2, max_size=8))
    return EncodedExample(tuple(ids), draw(st.integers(1, len(ids) - 1)))


def unpacked(row: PackedRow) -> list[tuple[int, ...]]:
    """Reconstruct the inputs from a row's prefix groups, in row order."""
    examples, position = [], 0
    for group in row.prefix_groups:
        prefix = row.ids[position : position + group.prefix]
        assert row.positions[position : position + group.prefix] == tuple(range(group.prefix))
        position += group.prefix
        for length in group.suffixes:
            examples.append(prefix + row.ids[position : position + length])
            assert row.positions[position : position + length] == tuple(
                range(group.prefix, group.prefix + length)
            )
            position += length
    assert position == len(row.ids)
    return examples


@given(st.lists(encoded_examples(), min_size=1, max_size=8))
def test_row_contains_every_example_once(examples: list[EncodedExample]) -> None:
    row = pack(examples)
    assert all(sorted(group.suffixes) == list(group.suffixes) for group in row.prefix_groups)
    assert sorted(unpacked(row)) == sorted(example.ids[:-1] for example in examples)
    assert len(row.ids) <= sum(len(example.ids) - 1 for example in examples)
    assert row.targets == tuple(
        token for example in examples for token in example.ids[example.answer_start :]
    )
    expected = [
        (at, example.ids[at])
        for example in examples
        for at in range(example.answer_start - 1, len(example.ids) - 1)
    ]
    assert [
        (row.positions[position], row.ids[position]) for position in row.logit_positions
    ] == expected


def test_examples_with_a_common_prefix_form_a_group() -> None:
    """Inputs are ids without the last: 5 5 1 2, 5 5 3 and 7 8. The first two share 5 5; the row is
    2 + 1 + 2 + 2 tokens long, the shorter suffix first.
    """
    row = pack(
        [
            EncodedExample((5, 5, 1, 2, 9), 4),
            EncodedExample((7, 8, 9), 1),
            EncodedExample((5, 5, 3, 9), 2),
        ]
    )
    assert row.ids == (5, 5, 3, 1, 2, 7, 8)
    assert row.positions == (0, 1, 2, 2, 3, 0, 1)
    assert row.prefix_groups == (PrefixGroup(2, (1, 2)), PrefixGroup(0, (2,)))
    assert row.logit_positions == (4, 5, 6, 1, 2)
    assert row.targets == (9, 8, 9, 3, 9)


def test_examples_without_common_prefix_form_one_group() -> None:
    row = pack(
        [
            EncodedExample((1, 2, 3, 9), 2),
            EncodedExample((4, 5, 9), 1),
            EncodedExample((6, 5, 9), 1),
            EncodedExample((7, 9), 1),
        ]
    )
    assert row.prefix_groups == (PrefixGroup(0, (1, 2, 2, 3)),)
    assert row.ids == (7, 4, 5, 6, 5, 1, 2, 3)


def test_two_system_prompts_form_two_groups() -> None:
    """Six inputs, three beginning with 1 1 1 1 and three with 1 2 2 2: one group would save 5 × 1
    tokens, two groups save 2 × 2 × 4.
    """
    examples = [
        EncodedExample((1, *middle, last, 0), 5)
        for middle in ((1, 1, 1), (2, 2, 2))
        for last in (7, 8, 9)
    ]
    assert [group.prefix for group in pack(examples).prefix_groups] == [4, 4]
    assert len(pack(examples).ids) == 2 * (4 + 3)
