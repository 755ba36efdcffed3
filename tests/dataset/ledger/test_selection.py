"""Which of a pool is chosen, and why."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.dataset.ledger.minhash import minhash_values, signature_of, words_of
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
        text=signature_of(words_of(text)),
    )


def chosen(candidates: list[DatasetEntry], count: int) -> list[int]:
    return [one.source.offset for one in select_informative(candidates, count)]


def test_corrections_come_before_everything_else() -> None:
    pool = [
        entry(at, words(f"t{at}"), correction=at in (3, 5), change=0.01, reward=0.0)
        for at in range(6)
    ]
    assert chosen(pool, 2) == [3, 5]


def alike(sizes: dict[str, int]) -> list[str]:
    """Texts of some kinds: those of one kind share most of their words."""
    return [
        f"{words(kind, 30)} {words(f'{kind}{number}', 10)}"
        for kind, size in sizes.items()
        for number in range(size)
    ]


def shares(candidates: list[DatasetEntry], count: int, kinds_of: list[str]) -> dict[str, int]:
    return dict(Counter(kinds_of[offset] for offset in chosen(candidates, count)))


def test_of_corrections_each_kind_in_its_share_however_much_of_an_answer_had_to_change() -> None:
    """Three kinds, 40, 20 and 20 of them. Whatever the changes are, 20 are drawn in these shares."""
    kinds_of = ["a"] * 40 + ["b"] * 20 + ["c"] * 20
    texts = alike({"a": 40, "b": 20, "c": 20})
    for changes in ({"a": 0.5, "b": 0.5, "c": 0.5}, {"a": 0.01, "b": 0.99, "c": 0.1}):
        pool = [entry(at, text, True, changes[kinds_of[at]]) for at, text in enumerate(texts)]
        assert shares(pool, 20, kinds_of) == {"a": 10, "b": 5, "c": 5}


def test_of_approved_answers_more_of_those_whose_praise_was_mixed() -> None:
    """Half of the pool each, and (1 - 0) / 2 = 0.5 against 0.1 for what everybody praised."""
    kinds_of = ["praised"] * 30 + ["mixed"] * 30
    texts = alike({"praised": 30, "mixed": 30})
    pool = [
        entry(at, text, reward=1.0 if kinds_of[at] == "praised" else 0.0)
        for at, text in enumerate(texts)
    ]
    assert shares(pool, 12, kinds_of) == {"mixed": 10, "praised": 2}


def test_what_is_taken_next_is_unlike_what_was_taken_before() -> None:
    """Ten kinds of two each: one of each comes before a second of any."""
    texts = alike({str(kind): 2 for kind in range(10)})
    pool = [entry(at, text) for at, text in enumerate(texts)]
    assert shares(pool, 10, [str(at // 2) for at in range(20)]) == {
        str(kind): 1 for kind in range(10)
    }


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0.1, 1)), min_size=1, max_size=12))
def test_the_mean_similarity_is_that_of_all_pairs(drawn: list[tuple[int, float]]) -> None:
    signatures = np.stack(
        [
            minhash_values(signature_of(words_of(f"{words('x', 9)} {words(str(kind), 9)}")))
            for kind, _ in drawn
        ]
    )
    weights = np.array([weight for _, weight in drawn])
    pairs = [
        sum(w * (one == other).mean() for other, w in zip(signatures, weights, strict=True))
        / weights.sum()
        for one in signatures
    ]
    assert mean_similarity(signatures, weights) == pytest.approx(pairs)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 8), st.booleans(), st.floats(0, 1)), min_size=2, max_size=30),
    st.data(),
)
def test_as_many_as_asked_for_each_once_in_the_order_given(
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
    corrections = sum(one.reason == "correction" for one in pool)
    assert sum(pool[at].reason == "correction" for at in offsets) == min(count, corrections)
