"""Which of a pool is chosen, and why."""

from hypothesis import given, settings
from hypothesis import strategies as st

from services.dataset.selection import most_informative
from services.dataset.similarity import signature_of, words_of
from shared.entries import Entry
from shared.events import Position, RewardPart
from shared.snapshots import Example
from tests.dataset.events import START, words


def entry(offset: int, text: str, correction: bool = False, change: float = 0.5, reward: float = 1.0) -> Entry:
    example = Example(feedback_id=f"e{offset}", messages=(), answer=text, feedback_type="thumbs_up", reward=reward, quality=1.0)
    return Entry(
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


def chosen(candidates: list[Entry], count: int) -> list[int]:
    return [one.source.offset for one in most_informative(candidates, count)]


def test_corrections_come_before_everything_else() -> None:
    pool = [entry(at, words(f"t{at}"), correction=at in (3, 5), change=0.01, reward=0.0) for at in range(6)]
    assert chosen(pool, 2) == [3, 5]


def test_of_corrections_those_that_change_most() -> None:
    pool = [entry(at, words(f"t{at}"), correction=True, change=at / 10) for at in range(6)]
    assert chosen(pool, 2) == [4, 5]


def test_of_approved_answers_those_whose_praise_was_mixed() -> None:
    pool = [entry(at, words(f"t{at}"), reward=1.0 - at / 10) for at in range(6)]
    assert chosen(pool, 2) == [4, 5]


def test_of_alike_examples_one() -> None:
    same = words("same", 30)
    pool = [entry(at, f"{same} {at}") for at in range(4)] + [entry(at, words(f"other{at}", 30)) for at in (4, 5)]
    assert chosen(pool, 3) == [0, 4, 5]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.booleans(), st.floats(0, 1)), min_size=2, max_size=30), st.data())
def test_as_many_as_asked_for_each_once_in_the_order_given(drawn: list[tuple[int, bool, float]], data: st.DataObject) -> None:
    pool = [entry(at, words(f"t{text}"), correction, change) for at, (text, correction, change) in enumerate(drawn)]
    count = data.draw(st.integers(1, len(pool)))
    offsets = chosen(pool, count)
    assert len(offsets) == count
    assert offsets == sorted(set(offsets))
    corrections = sum(one.reason == "correction" for one in pool)
    assert sum(pool[at].reason == "correction" for at in offsets) == min(count, corrections)
