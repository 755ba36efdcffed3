from hypothesis import given
from hypothesis import strategies as st

from services.dataset.ledger.minhash import MinHashIndex, Signature, signatures_of, words_of
from services.dataset.ledger.minhash import signature_of as signature_of_words
from shared.events import Message
from tests.support.scored_feedback import words


def signature_of(text: str) -> Signature:
    return signature_of_words(words_of(text))


def test_case_punctuation_and_spacing_are_ignored() -> None:
    assert signature_of("My order #17 has NOT arrived!") == signature_of(
        "my order 17\nhas not   arrived"
    )


def test_one_changed_word_in_200_is_a_near_duplicate() -> None:
    text = words("text", 200).split()
    index = MinHashIndex(0.9)
    index.add("text", signature_of(" ".join(text)))
    assert signature_of(" ".join([*text[:-1], "other"])) in index
    assert signature_of(" ".join(text[::20] + text)) in index
    assert (
        signature_of(" ".join(words("x") if at % 20 == 0 else word for at, word in enumerate(text)))
        not in index
    )


def test_prompt_and_answer_count_together() -> None:
    messages = [Message(role="user", content=words("prompt"))]
    index = MinHashIndex(0.9)
    prompt, text = signatures_of(messages, words("one"))
    index.add("a", text)
    assert signatures_of(messages, words("one"))[1] in index
    assert signatures_of(messages, words("two"))[1] not in index
    assert prompt not in index


@given(st.lists(st.text("ab ", max_size=8), max_size=3), st.text("ab ", max_size=12))
def test_both_signatures_equal_those_of_their_texts(prompts: list[str], answer: str) -> None:
    messages = [Message(role="user", content=prompt) for prompt in prompts]
    assert signatures_of(messages, answer) == (
        signature_of(" ".join(prompts)),
        signature_of(" ".join([*prompts, answer])),
    )


def test_removed_signatures_do_not_match() -> None:
    index = MinHashIndex(0.9)
    index.add("a", signature_of(words("a")))
    index.add("a", signature_of(words("b")))
    assert signature_of(words("a")) not in index
    index.remove("a")
    index.remove("a")
    assert signature_of(words("b")) not in index
    assert not index.contains_name("a")


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abcd"), st.sampled_from(["same", "nearly", "other"]), st.booleans()
        ),
        max_size=30,
    )
)
def test_similar_signatures_match_until_all_are_removed(
    steps: list[tuple[str, str, bool]],
) -> None:
    text = words("text", 60)
    signatures = {
        "same": signature_of(text),
        "nearly": signature_of(f"{text} {words('end', 1)}"),
        "other": signature_of(words("other", 60)),
    }
    index, indexed = MinHashIndex(0.9), dict[str, str]()
    for name, kind, added in steps:
        if added:
            index.add(name, signatures[kind])
            indexed[name] = kind
        else:
            index.remove(name)
            indexed.pop(name, None)
    left = set(indexed.values())
    assert [index.contains_name(name) for name in "abcd"] == [name in indexed for name in "abcd"]
    assert (
        (signatures["same"] in index)
        == (signatures["nearly"] in index)
        == bool(left & {"same", "nearly"})
    )
    assert (signatures["other"] in index) == ("other" in left)


def test_short_and_empty_texts_have_signatures() -> None:
    assert signature_of("") != signature_of("one") != signature_of("one two")


def test_system_messages_do_not_make_prompts_similar() -> None:
    system = Message(role="system", content=words("house rules", 300))
    first, second = (Message(role="user", content=words(name)) for name in ("one", "other"))
    index = MinHashIndex(0.9)
    index.add("a", signatures_of([system, first], words("answer"))[1])
    assert signatures_of([system, second], words("answer"))[1] not in index
    assert signatures_of([first], words("answer"))[1] in index
