"""Search for the examples that are worth comparing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.dataset.ledger.similarity.candidate_index import (
    MAX_CANDIDATES,
    CandidateIndex,
    exact_key,
    keys_of,
)
from services.dataset.ledger.similarity.names_by_key import MAX_NAMES, NamesByKey
from tests.dataset.ledger.similarity.labelled_pairs import SETS, labelled_pairs
from tests.support.scored_feedback import words

PROMPTS = ("Where is my parcel?", "where is my parcel", "Where is my key?", "Where is key 7?")
ANSWERS = ("It is here.", "It is here", "It left at 7.", "👍")


def test_near_duplicates_are_candidates() -> None:
    pairs = [pair for name in SETS for pair in labelled_pairs(name) if pair.label == "same"]
    missed = []
    for pair in pairs:
        index = CandidateIndex()
        index.add("first", keys_of(pair.first.prompt, pair.first.answer))
        if index.similar(keys_of(pair.second.prompt, pair.second.answer)) != ["first"]:
            missed.append(pair)
    assert len(pairs) > 200
    assert missed == []


@pytest.mark.parametrize("question_first", [False, True])
def test_questions_are_found_among_many_with_shared_text(question_first: bool) -> None:
    def prompt(question: str) -> str:
        return f"{question}\n{shared}" if question_first else f"{shared}\n{question}"

    index, shared = CandidateIndex(), words("shared", 500)
    questions = [f"Is the {words(f'q{number}', 2)} safe for my house?" for number in range(200)]
    for number, question in enumerate(questions):
        index.add(str(number), keys_of(prompt(question), "yes"))
    found = 0
    for number, question in enumerate(questions):
        keys = keys_of(prompt(question.replace("house", "huose")), "yes")
        found += str(number) in index.similar(keys) and (
            str(number) in index.with_similar_prompts(keys)
        )
    assert found >= 0.9 * len(questions)


def test_exact_copies_are_found_among_many_with_shared_text() -> None:
    index, shared = CandidateIndex(), words("shared", 500)
    for number in range(200):
        index.add(str(number), keys_of(f"{shared} {words(f'q{number}', 5)}", "positive"))
    assert index.similar(keys_of(f"{shared} {words('q77', 5)}", "positive")) == ["77"]


def test_a_prompt_with_many_answers_is_found() -> None:
    """As one prompt: other prompts like it would be on both sides of the evaluation split."""
    index = CandidateIndex()
    for number in range(2 * MAX_NAMES):
        index.add(f"e{number}", keys_of("Where is my parcel?", words(str(number))))
    [name] = index.with_similar_prompts(keys_of("where is my parcel", "Here."))
    assert name in index
    again = keys_of("where is my parcel", words("77") + "!")
    assert index.similar(again)[0] == "e77"


def test_candidates_are_few_and_the_closest_come_first() -> None:
    index = CandidateIndex()
    for number in range(50):
        index.add(f"e{number}", keys_of("Where is my parcel?", "I can not say" + "!" * number))
    index.add("closest", keys_of("Where is my parcel?", "It is here."))
    candidates = index.similar(keys_of("Where is my parcel?", "It is here"))
    assert len(candidates) <= MAX_CANDIDATES
    assert candidates[0] == "closest"


def test_other_figures_are_no_candidates() -> None:
    index = CandidateIndex()
    index.add("e", keys_of("Where is order 17?", "It left at 9:30."))
    same = keys_of("where is order 17", "it left at 9:30")
    assert (index.similar(same), index.with_similar_prompts(same)) == (["e"], ["e"])
    assert index.similar(keys_of("Where is order 17?", "It left at 9:31.")) == []
    assert index.with_similar_prompts(keys_of("Where is order 18?", "")) == []


def test_keys_common_to_many_names_find_none() -> None:
    names: NamesByKey[str] = NamesByKey()
    for number in range(MAX_NAMES + 1):
        names.add(str(number), [1, number + 10])
    assert names.shared([1, 2]) == ({}, 1)
    names.remove("64", [1])
    shared, telling = names.shared([1, 2, 11])
    assert (len(shared), shared["1"], telling) == (MAX_NAMES, 2, 3)


def test_short_and_empty_texts_have_keys() -> None:
    assert len({keys_of(text, "").prompt for text in ("", "a", "ab", "不", "👍", "?!")}) == 6
    assert exact_key("a", "b") != exact_key("b", "a")


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abcd"),
            st.sampled_from(PROMPTS),
            st.sampled_from(ANSWERS),
            st.booleans(),
        ),
        max_size=30,
    )
)
def test_only_what_is_indexed_counts(steps: list[tuple[str, str, str, bool]]) -> None:
    """Not the order of additions and removals."""
    index, indexed = CandidateIndex(), dict[str, tuple[str, str]]()
    for name, prompt, answer, added in steps:
        if added:
            index.add(name, keys_of(prompt, answer))
            indexed[name] = (prompt, answer)
        else:
            index.remove(name)
            indexed.pop(name, None)
    assert [name in index for name in "abcd"] == [name in indexed for name in "abcd"]
    fresh = CandidateIndex()
    for name in sorted(indexed):
        fresh.add(name, keys_of(*indexed[name]))
    for prompt in PROMPTS:
        for answer in ANSWERS:
            keys = keys_of(prompt, answer)
            assert index.similar(keys) == fresh.similar(keys)
            found, expected = (
                [indexed[name][0] for name in each.with_similar_prompts(keys)]
                for each in (index, fresh)
            )
            assert found == expected
            assert index.exact(keys.exact) == [
                name for name in sorted(indexed) if indexed[name] == (prompt, answer)
            ]
