"""Parsing of a teacher's replies."""

import json

import pytest

from services.dataset.teacher.reply import MAX_EXAMPLES, TaughtExample, parse_reply
from tests.support.teacher_server import examples

EXAMPLE = TaughtExample("How far?", "7 km", "up to 7 km")
CONTENT = examples(("How far?", "7 km", "up to 7 km"))


@pytest.mark.parametrize(
    "text",
    [
        CONTENT,
        f"```json\n{CONTENT}\n```",
        f"Here you are:\n```\n{CONTENT}",
        f"<think>\nThe user wants {{}} JSON.\n</think>\n\n{CONTENT}",
        f"Sure! {CONTENT} I hope this helps.",
        f"I think {{of this}} as follows: {CONTENT}",
        json.dumps(json.loads(CONTENT)["examples"]),
    ],
)
def test_replies_with_json_in_any_wrapping(text: str) -> None:
    assert parse_reply(text) == (EXAMPLE,)


@pytest.mark.parametrize(
    "text",
    ["", "I cannot do that.", '{"questions": []}', "{" * 5_000, "[" * 100_000, '{"examples": 5}'],
)
def test_replies_without_the_requested_json(text: str) -> None:
    assert parse_reply(text) is None


def test_incomplete_examples_are_left_out() -> None:
    values = [
        {"question": "a?", "answer": "b"},
        {"question": " ", "answer": "b", "quote": "c"},
        {"question": "a?", "answer": 5, "quote": "c"},
        {"question": "a?", "answer": "\ud800", "quote": "c"},
        "a?",
        None,
    ]
    assert parse_reply(json.dumps({"examples": values})) == (TaughtExample("a?", "b", ""),)
    many = json.dumps({"examples": [values[0]] * (MAX_EXAMPLES + 1)})
    assert len(parse_reply(many) or ()) == MAX_EXAMPLES


def test_complete_examples_of_a_reply_that_was_cut_off() -> None:
    text = examples(("How far?", "7 km", "up to 7 km"), ("Who?", "Ines", "by Ines"))
    assert parse_reply(text[: text.rindex("by Ines")]) == (EXAMPLE,)
    assert parse_reply("```json\n" + text[: text.index("7 km")]) is None


def test_no_examples_are_a_reply_too() -> None:
    assert parse_reply('{"examples": []}') == ()
