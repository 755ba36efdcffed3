from hypothesis import given
from hypothesis import strategies as st

from services.dataset.ledger.minhash import MinHashIndex, Signature, signatures_of, words_of
from services.dataset.ledger.minhash import signature_of as signature_of_words
from shared.events import Message
from tests.support.scored_feedback import words


def signature_of(text: str) -> Signature:
    return signature_of_words(words_of(text))


def test_case_punctuation_and_spacing_do_not_count() -> None:
    assert signature_of("My order #17 has NOT arrived!") == signature_of(
        "my order 17\nhas not   arrived"
    )


def test_a_word_of_two_hundred_is_a_near_duplicate_and_ten_are_not() -> None:
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
def test_both_signatures_are_those_of_their_texts(prompts: list[str], answer: str) -> None:
    messages = [Message(role="user", content=prompt) for prompt in prompts]
    assert signatures_of(messages, answer) == (
        signature_of(" ".join(prompts)),
        signature_of(" ".join([*prompts, answer])),
    )


def test_what_is_removed_is_found_no_more() -> None:
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
def test_what_is_alike_is_found_under_each_name_until_the_last_is_removed(
    steps: list[tuple[str, str, bool]],
) -> None:
    text = words("text", 60)
    signatures = {
        "same": signature_of(text),
        "nearly": signature_of(f"{text} {words('end', 1)}"),
        "other": signature_of(words("other", 60)),
    }
    index, there = MinHashIndex(0.9), dict[str, str]()
    for name, said, added in steps:
        if added:
            index.add(name, signatures[said])
            there[name] = said
        else:
            index.remove(name)
            there.pop(name, None)
    left = set(there.values())
    assert [index.contains_name(name) for name in "abcd"] == [name in there for name in "abcd"]
    assert (
        (signatures["same"] in index)
        == (signatures["nearly"] in index)
        == bool(left & {"same", "nearly"})
    )
    assert (signatures["other"] in index) == ("other" in left)


def test_short_and_empty_texts_have_signatures() -> None:
    assert signature_of("") != signature_of("one") != signature_of("one two")


def test_what_the_application_says_before_every_prompt_does_not_make_prompts_alike() -> None:
    system = Message(role="system", content=words("house rules", 300))
    one, other = (Message(role="user", content=words(name)) for name in ("one", "other"))
    index = MinHashIndex(0.9)
    index.add("a", signatures_of([system, one], words("answer"))[1])
    assert signatures_of([system, other], words("answer"))[1] not in index
    assert signatures_of([one], words("answer"))[1] in index
