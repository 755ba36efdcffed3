"""MinHash over shingles of words."""

from hypothesis import given
from hypothesis import strategies as st

from services.dataset.ledger.minhash import Minima, minima_of, minima_of_words, words_of
from shared.events import Message
from tests.support.scored_feedback import words


def minima(text: str) -> Minima:
    return minima_of_words(words_of(text))


def share_of_equal(first: str, second: str) -> float:
    return float((minima(first) == minima(second)).mean())


def test_case_punctuation_and_spacing_are_ignored() -> None:
    assert share_of_equal("My order #17 has NOT arrived!", "my order 17\nhas not   arrived") == 1.0


def test_equal_minima_estimate_the_jaccard_similarity() -> None:
    """One changed word at the end of 200 changes one of 198 shingles, every 20th up to 30."""
    text = words("text", 200).split()
    assert share_of_equal(" ".join(text), " ".join([*text[:-1], "other"])) >= 0.9
    assert share_of_equal(" ".join(text), " ".join(text[::20] + text)) >= 0.9
    changed = [words("x") if at % 20 == 0 else word for at, word in enumerate(text)]
    assert share_of_equal(" ".join(text), " ".join(changed)) < 0.9


@given(st.lists(st.text("ab ", max_size=8), max_size=3), st.text("ab ", max_size=12))
def test_prompt_and_answer_are_one_text(prompts: list[str], answer: str) -> None:
    messages = [Message(role="user", content=prompt) for prompt in prompts]
    assert (minima_of(messages, answer) == minima(" ".join([*prompts, answer]))).all()


def test_short_and_empty_texts_have_minima() -> None:
    assert share_of_equal("", "one") < 0.1
    assert share_of_equal("one", "one two") < 0.1


def test_system_messages_do_not_count() -> None:
    system = Message(role="system", content=words("house rules", 300))
    user = Message(role="user", content=words("one"))
    assert (minima_of([system, user], "answer") == minima_of([user], "answer")).all()
    assert (minima_of([system], "") == minima(system.content)).all()
