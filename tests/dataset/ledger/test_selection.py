"""Selection of the most informative examples of a pool."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.dataset.ledger.minhash import minima_of_words, words_of
from services.dataset.ledger.selection import mean_similarity, select_informative
from shared.events import Position, RewardPart
from shared.storage.dataset_entries import DatasetEntry
from shared.storage.snapshots import Example
from tests.support.scored_feedback import START, words


def entry(
    offset: int, text: str, correction: bool = False, change: float = 0.5, reward: float = 1.0
) -> DatasetEntry:
    example = Example(
        feedback_id=f"e{offset}",
        messages=(),
        answer=text,
        feedback_type="thumbs_up",
        reward=reward,
        quality=1.0,
    )
    return DatasetEntry(
        model="support",
        shard=0,
        feedback_id=f"e{offset}",
        decision="training",
        reason="correction" if correction else "approved",
        source=Position(topic="t", partition=0, offset=offset),
        occurred_at=START,
        logged_at=START,
        parts=(RewardPart(name="correction", value=-change, weight=1.0),) if correction else (),
        example=example,
    )


def chosen(candidates: list[DatasetEntry], count: int) -> list[int]:
    return [entry.source.offset for entry in select_informative(candidates, count)]


def test_corrections_are_selected_first() -> None:
    pool = [
        entry(at, words(f"t{at}"), correction=at in (3, 5), change=0.01, reward=0.0)
        for at in range(6)
    ]
    assert chosen(pool, 2) == [3, 5]


def similar_texts(sizes: dict[str, int]) -> list[str]:
    """Return texts by kind; those of one kind share most of their words."""
    return [
        f"{words(kind, 30)} {words(f'{kind}{number}', 10)}"
        for kind, size in sizes.items()
        for number in range(size)
    ]


def shares(candidates: list[DatasetEntry], count: int, kinds_of: list[str]) -> dict[str, int]:
    return dict(Counter(kinds_of[offset] for offset in chosen(candidates, count)))


def test_corrections_of_each_kind_keep_their_share() -> None:
    """Of 40, 20 and 20 examples of three kinds, 20 are selected in these shares, whatever the size
    of the changes.
    """
    kinds_of = ["a"] * 40 + ["b"] * 20 + ["c"] * 20
    texts = similar_texts({"a": 40, "b": 20, "c": 20})
    for changes in ({"a": 0.5, "b": 0.5, "c": 0.5}, {"a": 0.01, "b": 0.99, "c": 0.1}):
        pool = [entry(at, text, True, changes[kinds_of[at]]) for at, text in enumerate(texts)]
        assert shares(pool, 20, kinds_of) == {"a": 10, "b": 5, "c": 5}


def test_mixed_praise_has_more_weight() -> None:
    """Half of the pool each, and (1 - 0) / 2 = 0.5 against 0.1 for unanimous praise."""
    kinds_of = ["praised"] * 30 + ["mixed"] * 30
    texts = similar_texts({"praised": 30, "mixed": 30})
    pool = [
        entry(at, text, reward=1.0 if kinds_of[at] == "praised" else 0.0)
        for at, text in enumerate(texts)
    ]
    assert shares(pool, 12, kinds_of) == {"mixed": 10, "praised": 2}


def test_next_selected_differs_from_earlier_ones() -> None:
    """Of ten kinds with two examples each, one of each kind is selected."""
    texts = similar_texts({str(kind): 2 for kind in range(10)})
    pool = [entry(at, text) for at, text in enumerate(texts)]
    assert shares(pool, 10, [str(at // 2) for at in range(20)]) == {
        str(kind): 1 for kind in range(10)
    }


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0.1, 1)), min_size=1, max_size=12))
def test_mean_similarity_equals_pairwise_average(drawn: list[tuple[int, float]]) -> None:
    signatures = np.stack(
        [minima_of_words(words_of(f"{words('x', 9)} {words(str(kind), 9)}")) for kind, _ in drawn]
    )
    weights = np.array([weight for _, weight in drawn])
    pairs = [
        sum(w * (first == second).mean() for second, w in zip(signatures, weights, strict=True))
        / weights.sum()
        for first in signatures
    ]
    assert mean_similarity(signatures, weights) == pytest.approx(pairs)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 8), st.booleans(), st.floats(0, 1)), min_size=2, max_size=30),
    st.data(),
)
def test_selection_has_the_requested_size_and_order(
    drawn: list[tuple[int, bool, float]], data: st.DataObject
) -> None:
    pool = [
        entry(at, words(f"t{text}"), correction, change)
        for at, (text, correction, change) in enumerate(drawn)
    ]
    count = data.draw(st.integers(1, len(pool)))
    offsets = chosen(pool, count)
    assert len(offsets) == count
    assert offsets == sorted(set(offsets))
    corrections = sum(entry.reason == "correction" for entry in pool)
    assert sum(pool[at].reason == "correction" for at in offsets) == min(count, corrections)
