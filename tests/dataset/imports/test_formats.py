"""Formats of records: the examples of each, and the error of what an example cannot carry."""

import json
from typing import Any

import pytest

from services.dataset.imports.conversations import MAX_ANSWERS
from services.dataset.imports.formats import examples_of, recognise
from services.dataset.imports.records import ImportedExample, InvalidLine
from shared.events import Message
from tests.support.imported_files import said

QUESTION = Message(role="user", content="Why?")
SYSTEM = Message(role="system", content="Be brief.")


def one(record: dict[str, Any]) -> ImportedExample:
    [example] = examples_of(record, None)
    return example


def error_of(record: dict[str, Any]) -> str:
    with pytest.raises(InvalidLine) as invalid:
        list(examples_of(record, None))
    return str(invalid.value)


def conversation(*messages: Any, **fields: Any) -> dict[str, Any]:
    return {"messages": list(messages), **fields}


def test_each_assistant_message_is_an_example() -> None:
    turns = [
        said("developer", "Be brief."),
        said("user", "Why?"),
        said("assistant", "So."),
        said("user", "When?", name=None),
        said("assistant", [{"type": "text", "text": "No"}, {"type": "text", "text": "w."}]),
    ]
    first, second = examples_of(conversation(*turns), None)
    assert first == ImportedExample((SYSTEM, QUESTION), "So.")
    assert second.answer == "Now."
    assert [message.content for message in second.messages] == ["Be brief.", "Why?", "So.", "When?"]


def test_messages_with_weight_0_are_context_only() -> None:
    turns = [
        said("user", "Why?"),
        said("assistant", "So.", weight=0),
        said("user", "When?"),
        said("assistant", "Now.", weight=1),
    ]
    example = one(conversation(*turns))
    assert (len(example.messages), example.answer) == (3, "Now.")


def test_messages_stored_as_json_text_are_parsed() -> None:
    question, answer = said("user", "Why?"), said("assistant", "So.")
    expected = ImportedExample((QUESTION,), "So.")
    assert one({"messages": json.dumps([question, answer])}) == expected
    assert one({"prompt": json.dumps([question]), "completion": json.dumps(answer)}) == expected
    pair = one(
        {
            "prompt": json.dumps({"messages": [question]}),
            "chosen": json.dumps([answer]),
            "rejected": json.dumps(said("assistant", "No.")),
        }
    )
    assert pair == ImportedExample((QUESTION,), "So.", "No.")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (conversation(), "messages: is an empty list"),
        ({"messages": "hello"}, "messages: expected a list of messages, found a text"),
        (conversation(said("user", "Why?")), "the last message has the role user"),
        (conversation(said("assistant", "So.")), "no user message before the answer"),
        (
            conversation(said("user", " "), said("assistant", "So.")),
            "no user message before the answer",
        ),
        (
            conversation(said("user", "Why?"), said("assistant", " ")),
            "messages.1.content: is blank",
        ),
        (
            conversation(said("user", "Why?"), said("assistant", "So.", weight=0)),
            "all assistant messages have weight 0",
        ),
        (
            conversation(said("user", "Why?"), said("assistant", "So.", weight=0.5)),
            "messages.1.weight: expected 0",
        ),
        (
            conversation(said("user", "Why?", weight=0), said("assistant", "So.")),
            "messages.0.weight: only assistant messages",
        ),
        (
            conversation(said("user", "Why?"), said("bot", "So.")),
            "messages.1.role: expected one of system, developer, user, assistant, tool",
        ),
        (conversation(said("user", "Why?"), 5), "messages.1: expected {role, content}"),
        (
            conversation(said("user", "Why?"), said("assistant", None, tool_calls=[{"id": "1"}])),
            "messages.1.tool_calls: tool calls cannot be trained on",
        ),
        (
            conversation(said("user", "Why?"), said("assistant", "So."), tools=[{"type": "x"}]),
            "tools: tool definitions cannot be trained on",
        ),
        (
            conversation(
                said("user", [{"type": "image_url", "image_url": {"url": "x"}}]),
                said("assistant", "So."),
            ),
            "messages.0.content.0: only text parts",
        ),
        (
            conversation(said("user", "Why?"), said("assistant", "So.", reasoning="hm")),
            "messages.1.reasoning: an example cannot carry it",
        ),
        (
            conversation(*[said("user", "a"), said("assistant", "b")] * (MAX_ANSWERS + 1)),
            "has 201 answers, at most 200",
        ),
    ],
)
def test_chats_that_cannot_be_trained_on_are_named(record: dict[str, Any], reason: str) -> None:
    assert reason in error_of(record)


def test_sharegpt_with_a_system_message() -> None:
    turns = [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]
    record = {"conversations": turns, "system": "Be brief.", "id": 7}
    assert one(record) == ImportedExample((SYSTEM, QUESTION), "So.")


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([], "expected a list of {from, value}"),
        (["hello"], "conversations.0: expected {from, value}, found a text"),
        ([{"from": "observation", "value": "1"}], "conversations.0.from: expected one of"),
        ([{"from": "human", "value": 5}], "conversations.0.value: expected a text"),
        ([{"from": "human", "value": "Why?"}], "the last message has the role user"),
    ],
)
def test_bad_sharegpt_is_named(turns: list[Any], reason: str) -> None:
    assert reason in error_of({"conversations": turns})


def test_alpaca_with_and_without_an_input() -> None:
    assert one({"instruction": "Why?", "input": "", "output": "So."}) == ImportedExample(
        (QUESTION,), "So."
    )
    record = {"instruction": "Sort:", "input": "b a", "output": "a b", "system": "Be brief."}
    example = one(record)
    assert example.messages == (SYSTEM, Message(role="user", content="Sort:\n\nb a"))


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"instruction": " ", "output": "So."}, "instruction: is blank"),
        ({"instruction": "Why?", "output": ["So."]}, "output: expected a text, found a list"),
        ({"instruction": "Why?", "output": "So.", "history": [["a", "b"]]}, "history: earlier"),
        ({"instruction": "Why?", "output": "So.", "input": 5}, "input: expected a text"),
    ],
)
def test_bad_alpaca_is_named(record: dict[str, Any], reason: str) -> None:
    assert reason in error_of(record)


def test_completions_are_texts_or_messages() -> None:
    expected = ImportedExample((QUESTION,), "So.")
    assert one({"prompt": "Why?", "completion": "So."}) == expected
    messages = {"prompt": [said("user", "Why?")], "completion": [said("assistant", "So.")]}
    assert one(messages) == expected
    assert one({**messages, "label": True}) == expected
    assert one({**messages, "label": False}).is_negative


@pytest.mark.parametrize("label", [0, 1, "no"])
def test_labels_are_true_or_false(label: Any) -> None:
    assert "label: expected true" in error_of(
        {"prompt": "Why?", "completion": "So.", "label": label}
    )


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "Why?", "chosen": "So.", "rejected": "No."},
        {
            "prompt": [said("user", "Why?")],
            "chosen": [said("assistant", "So.")],
            "rejected": [said("assistant", "No.")],
        },
        {
            "prompt": "Why?",
            "chosen": [said("user", "Why?"), said("assistant", "So.")],
            "rejected": [said("user", "Why?"), said("assistant", "No.")],
            "messages": [said("user", "Why?"), said("assistant", "So.")],
        },
        {
            "chosen": [said("user", "Why?"), said("assistant", "So.")],
            "rejected": [said("user", "Why?"), said("assistant", "No.")],
        },
        {
            "input": {"messages": [said("user", "Why?")], "tools": []},
            "preferred_output": [said("assistant", "So.")],
            "non_preferred_output": [said("assistant", "No.")],
        },
    ],
)
def test_preferences_in_each_form(record: dict[str, Any]) -> None:
    assert one(record) == ImportedExample((QUESTION,), "So.", "No.")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"prompt": "Why?", "chosen": "So.", "rejected": " So. "}, "are the same"),
        ({"prompt": "Why?", "chosen": "So.", "rejected": ""}, "rejected: is blank"),
        ({"chosen": "So.", "rejected": "No."}, "chosen: expected a list of messages"),
        (
            {
                "chosen": [said("user", "Why?"), said("assistant", "So.")],
                "rejected": [said("user", "When?"), said("assistant", "No.")],
            },
            "chosen: no user message before the answer",
        ),
        (
            {
                "prompt": "Why?",
                "chosen": [said("assistant", "So."), said("user", "a"), said("assistant", "b")],
                "rejected": "No.",
            },
            "chosen: expected one assistant message after the prompt",
        ),
        (
            {"input": "Why?", "preferred_output": "So.", "non_preferred_output": "No."},
            "input: expected {messages}, found a text",
        ),
        (
            {
                "input": {"messages": [said("user", "Why?")], "tools": [{"type": "function"}]},
                "preferred_output": [said("assistant", "So.")],
                "non_preferred_output": [said("assistant", "No.")],
            },
            "input.tools: tool definitions",
        ),
    ],
)
def test_bad_preferences_are_named(record: dict[str, Any], reason: str) -> None:
    assert reason in error_of(record)


def test_an_unknown_record_lists_what_was_expected() -> None:
    error = error_of({"question": "Why?", "reply": "So."})
    assert "it has 'question', 'reply'" in error
    assert "instruction, output" in error


def test_fields_without_a_value_do_not_decide_the_format() -> None:
    record = {"messages": None, "chosen": None, "instruction": "Why?", "output": "So."}
    assert recognise(record) == "alpaca"
