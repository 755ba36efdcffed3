"""Curation of imported examples: the rules for feedback hold for files."""

import pytest

from services.dataset.imports.records import ImportedExample, InvalidLine
from services.dataset.ledger.curation import is_held_out
from services.dataset.ledger.golden_set import COMMON_AFTER
from shared.config.model_file import ModelFile
from shared.events import Message
from shared.identity import prompt_identity
from tests.support.imported_files import curation
from tests.support.scored_feedback import model_file, words

JSON_ANSWERS = ModelFile.model_validate(
    {
        "model": "support",
        "base": {"training": "base", "serving": "base.gguf"},
        "reward": {"name": "sorted", "version": 1, "format": "json"},
    }
)
NOTHING_HELD_OUT = model_file(held_out_share=0.0)
HALF_HELD_OUT = model_file(held_out_share=0.5)


def asked(text: str) -> tuple[Message, ...]:
    return (Message(role="user", content=text),)


def example(seed: str, **fields: str | bool) -> ImportedExample:
    return ImportedExample(asked(words(f"prompt {seed}")), words(f"answer {seed}"), **fields)  # type: ignore[arg-type]


def test_the_hash_of_the_prompt_holds_out() -> None:
    curated = curation(HALF_HELD_OUT)
    for word in ("tent", "screw", "rope", "pole", "peg", "bag", "stove", "lamp"):
        prompt = asked(f"Where is my {word}?")
        [decided] = curated.curate([ImportedExample(prompt, f"The {word} is here.")])
        held_out = is_held_out(prompt_identity(prompt), 0.5)
        assert decided.decision == ("held_out" if held_out else "training")


def test_repeated_and_similar_examples_are_dropped() -> None:
    curated = curation(NOTHING_HELD_OUT)
    long = ImportedExample(asked(words("long", 60)), words("long answer", 60))
    similar = ImportedExample(long.messages, long.answer + " again")
    decisions = [curated.curate([each])[0] for each in (long, long, similar)]
    assert [(each.decision, each.reason) for each in decisions] == [
        ("training", "imported"),
        ("dropped", "duplicate"),
        ("dropped", "near_duplicate"),
    ]


def test_answers_of_one_conversation_are_no_duplicates() -> None:
    curated = curation(NOTHING_HELD_OUT)
    start = (*asked(words("start", 200)), Message(role="assistant", content="Yes."))
    turns = [
        ImportedExample(start[:1], "Yes."),
        ImportedExample((*start, Message(role="user", content="Sure?")), "Quite."),
    ]
    assert [each.decision for each in curated.curate(turns)] == ["training", "training"]
    again = ImportedExample((*start, Message(role="user", content="Sure ?")), "Quite!")
    assert curated.curate([again])[0].reason == "near_duplicate"


def test_prompts_of_the_golden_set_are_dropped() -> None:
    golden = asked(words("golden", 30))
    curated = curation(NOTHING_HELD_OUT, [golden])
    same = ImportedExample(asked(words("golden", 30).upper()), "a")
    overlapping = ImportedExample(asked(words("other", 90) + " " + words("golden", 30)), "b")
    for each in (same, overlapping):
        assert curated.curate([each])[0].reason == "contaminated"


def test_prompts_like_held_out_ones_are_dropped() -> None:
    prompts = [words(f"long {n}", 100) for n in range(40)]
    held_out = next(text for text in prompts if is_held_out(prompt_identity(asked(text)), 0.5))
    variant = next(
        held_out + "!" * n
        for n in range(40)
        if not is_held_out(prompt_identity(asked(held_out + "!" * n)), 0.5)
    )
    curated = curation(HALF_HELD_OUT)
    assert curated.curate([ImportedExample(asked(held_out), "a")])[0].decision == "held_out"
    assert curated.curate([ImportedExample(asked(variant), "b")])[0].reason == "contaminated"


def test_what_differs_decides_on_near_duplicates() -> None:
    curated = curation(NOTHING_HELD_OUT)
    template = words("template", 60)
    questions = ["Where is my parcel?", "Where is my parcl?", "Where is my invoice?"]
    reasons = [
        curated.curate([ImportedExample(asked(f"{template}\n{question}"), "On its way.")])[0].reason
        for question in questions
    ]
    assert reasons == ["imported", "near_duplicate", "imported"]


def test_a_pair_wins_over_the_answer_that_it_rejects() -> None:
    curated = curation(NOTHING_HELD_OUT)
    question = asked("Is it open?")
    answers: list[tuple[str, str | None]] = [
        ("It is open.", None),
        ("It is  open", None),
        ("It is open", "It is open."),
        ("It is open", "It is shut."),
    ]
    decided = [curated.curate([ImportedExample(question, *answer)])[0].reason for answer in answers]
    assert decided == ["imported", "near_duplicate", "imported", "near_duplicate"]


def test_personal_data_is_redacted_across_the_example() -> None:
    imported = ImportedExample(
        asked("I am ada@example.com"), "Hello ada@example.com", "Hello bob@example.com"
    )
    [decided] = curation(NOTHING_HELD_OUT).curate([imported])
    assert decided.example is not None
    assert decided.example.messages == asked("I am <EMAIL_1>")
    assert (decided.example.answer, decided.example.rejected) == (
        "Hello <EMAIL_1>",
        "Hello <EMAIL_2>",
    )
    assert decided.redactions == {"email": 3}


def test_answers_that_break_the_format_are_refused() -> None:
    curated = curation(JSON_ANSWERS)
    with pytest.raises(InvalidLine, match="the answer is not JSON, and the model would learn it"):
        curated.curate([example("a")])
    good = ImportedExample(asked(words("a")), '{"queue":"workshop"}', "I am sorry!")
    bad = ImportedExample(asked(words("b")), "I am sorry!", is_negative=True)
    assert curated.curate([good])[0].example is not None
    assert curated.curate([bad])[0].decision in ("negative", "dropped")


def test_kinds_have_the_feedback_that_they_stand_for() -> None:
    curated = curation(NOTHING_HELD_OUT)
    decided = [
        curated.curate([each])[0]
        for each in (example("a"), example("b", rejected="no"), example("c", is_negative=True))
    ]
    rows = [
        (each.decision, each.example.feedback_type, each.example.reward, each.example.quality)
        for each in decided
        if each.example
    ]
    assert rows == [
        ("training", "accepted", 1.0, 1.0),
        ("training", "correction", -1.0, 1.0),
        ("negative", "thumbs_down", -1.0, 0.0),
    ]


def test_reasoning_is_no_part_of_an_imported_answer() -> None:
    thought = "<think>Which one?</think>\n"
    earlier = (Message(role="assistant", content=f"{thought}Hello."), *asked("Which colour?"))
    imported = ImportedExample((*asked("Hi."), *earlier), f"{thought}Blue.", f"{thought}Red.")
    [curated] = curation(NOTHING_HELD_OUT).curate([imported])
    assert curated.example is not None
    assert curated.example.messages[1].content == "Hello."
    assert (curated.example.answer, curated.example.rejected) == ("Blue.", "Red.")

    keeping = ModelFile.model_validate({**NOTHING_HELD_OUT.model_dump(), "thinking": "keep"})
    [curated] = curation(keeping).curate([imported])
    assert curated.example is not None
    assert curated.example.answer == f"{thought}Blue."

    with pytest.raises(InvalidLine, match="the answer is reasoning alone"):
        curation(NOTHING_HELD_OUT).curate([ImportedExample(asked("Hi."), thought)])


def test_an_answer_that_redaction_broke_is_dropped() -> None:
    schema = {"type": "object", "properties": {"phone": {"type": "integer"}}}
    file = JSON_ANSWERS.model_copy(
        update={"reward": JSON_ANSWERS.reward.model_copy(update={"json_schema": schema})}
    )
    prompt = asked("My phone is 2125551234.")
    [decided] = curation(file).curate([ImportedExample(prompt, '{"phone": 2125551234}')])
    assert (decided.decision, decided.reason) == ("dropped", "format_redacted")
    [decided] = curation(file).curate([ImportedExample(prompt, '{"queue": "2125551234"}')])
    assert decided.reason != "format_redacted"


def test_a_placeholder_that_the_prompt_lacks_is_dropped() -> None:
    answer = "Write to ada@example.com."
    [decided] = curation(NOTHING_HELD_OUT).curate([ImportedExample(asked("Who?"), answer)])
    assert (decided.decision, decided.reason) == ("dropped", "new_placeholder")
    avoided = ImportedExample(asked("Who?"), answer, is_negative=True)
    assert curation(NOTHING_HELD_OUT).curate([avoided])[0].decision == "negative"


def test_a_template_of_one_golden_prompt_is_found_to_be_common() -> None:
    template = words("template", 30)
    golden = asked(f"{template} {words('golden', 8)}")
    curated = curation(NOTHING_HELD_OUT, [golden])
    reasons = [
        curated.curate(
            [ImportedExample(asked(f"{template} {words(f'q {n}', 8)}"), words(f"a {n}"))]
        )[0].reason
        for n in range(COMMON_AFTER + 3)
    ]
    assert reasons == ["contaminated"] * COMMON_AFTER + ["imported"] * 3
    assert curated.curate([ImportedExample(golden, "Yes.")])[0].reason == "contaminated"
