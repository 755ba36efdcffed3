"""Similarity of two texts."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.dataset.ledger.similarity.measure import similarity
from services.dataset.ledger.similarity.segments import figures_of
from services.dataset.ledger.similarity.stored_text import (
    MAX_CHARACTERS,
    pack,
    prompt_text,
    shortened,
    unpack,
)
from services.dataset.ledger.similarity.tokens import numbers_of
from shared.events import Message
from tests.dataset.ledger.similarity.labelled_pairs import SETS, labelled_pairs
from tests.support.scored_feedback import words

LETTERS = str.maketrans("0123456789", "ghijklmnop")
TEXTS = st.text(st.sampled_from("ab1 .,\n?'-+{}[]\"=()不上のครé👍👎"), max_size=60) | st.text(
    max_size=40
)


def plain_words(seed: str, count: int) -> str:
    """Words without figures."""
    return words(seed, count).translate(LETTERS)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("My order #17 has NOT arrived!", "my order 17\nhas not   arrived", 1.0),
        ("My parcel is open", "My parcl is open", 1 - 1 / 18),
        ("The lamp is red", "The lamp is blue", 0.0),
        ("Two lamps", "Three lamps", 0.0),
        ("Thanks!", "Hello", 0.0),
        ("Thanks!", "thanks!", 1.0),
        ("", "", 1.0),
        ("x = 1", "x  = 1", 1.0),
        ("x = 1", "x = 2", 0.0),
        ("    x = 1", "x = 1", 0.0),
        ('{"a": 1, "b": [2]}', '{"b":[2],"a":1}', 1.0),
        ('{"a": 1}', '{"a": "1"}', 0.0),
    ],
)
def test_similarity_of_what_differs(first: str, second: str, expected: float) -> None:
    assert similarity(first, second) == pytest.approx(expected)
    assert similarity(second, first) == pytest.approx(expected)


def test_one_changed_word_in_200_is_similar() -> None:
    text = plain_words("text", 200).split()
    assert similarity(" ".join(text), " ".join([*text[:-1], "lamp"])) >= 0.9
    assert similarity(" ".join(text), " ".join([text[20], *text])) >= 0.9
    changed = [plain_words("x", 1) if at % 20 == 0 else word for at, word in enumerate(text)]
    assert similarity(" ".join(text), " ".join(changed)) < 0.9


def test_a_shared_text_does_not_hide_another_sentence() -> None:
    shared = plain_words("shared", 3000)
    assert similarity(f"{shared}. Who pays?", f"{shared}. Who votes?") < 0.9
    assert similarity(f"Who pays? {shared}.", f"Who votes? {shared}.") < 0.9


@given(TEXTS, TEXTS)
@example("😀d", "า😀")
@example("Hi E", "Hi \u0301")
def test_similarity_is_a_symmetric_share(first: str, second: str) -> None:
    value = similarity(first, second)
    assert 0.0 <= value <= 1.0
    assert similarity(second, first) == value
    assert similarity(first, first) == 1.0


@given(TEXTS | st.text(st.sampled_from("ab\n"), min_size=490, max_size=510))
def test_stored_text_is_read_back(text: str) -> None:
    assert unpack(pack(text)) == text


def test_nothing_and_earlier_signatures_are_no_text() -> None:
    assert unpack(None) is None
    assert unpack("AAAA" * 171) is None


def test_the_middle_of_a_long_text_is_compared_as_a_whole() -> None:
    text = plain_words("long", 2000)
    assert shortened(text[:MAX_CHARACTERS]) == text[:MAX_CHARACTERS]
    assert len(shortened(text)) < MAX_CHARACTERS + 50
    other = f"{text[:5000]}x{text[5000:]}"
    assert similarity(shortened(text), shortened(other)) == 0.0
    assert similarity(shortened(text), shortened(f"{text[:-1]}")) < 1.0


def test_prompt_text_leaves_out_system_messages() -> None:
    system, user, assistant = (
        Message(role=role, content=role) for role in ("system", "user", "assistant")
    )
    assert prompt_text([system, user]) == "user"
    assert prompt_text([system]) == "system"
    assert prompt_text([user, assistant]) == "user:\nuser\n\nassistant:\nassistant"


@pytest.mark.parametrize(
    ("text", "figures"),
    [
        ("Room 3, 2nd floor, at 9:30", ["3", "2", "9:30"]),
        ("v2 costs 1,5 times", ["1,5"]),
        ("３个", ["3"]),
        ("don't", []),
    ],
)
def test_numbers_are_those_of_the_tokens(text: str, figures: list[str]) -> None:
    assert numbers_of(text) == figures


@given(TEXTS, TEXTS)
def test_texts_with_other_figures_have_no_similarity(first: str, second: str) -> None:
    if figures_of(first) != figures_of(second):
        assert similarity(first, second) == 0.0


def test_similar_pairs_have_the_same_figures() -> None:
    pairs = [pair for name in SETS for pair in labelled_pairs(name)]
    texts = [(pair.first.prompt, pair.second.prompt) for pair in pairs]
    texts += [(pair.first.answer, pair.second.answer) for pair in pairs]
    similar = [each for each in texts if similarity(*each) > 0.0]
    assert len(similar) > 400
    assert all(figures_of(first) == figures_of(second) for first, second in similar)
