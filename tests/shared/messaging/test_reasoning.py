"""Reasoning in the forms in which models and chat applications write it, apart from the answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.events import Message
from shared.messaging.reasoning import (
    messages_without_reasoning,
    with_reasoning,
    without_reasoning,
)

OPEN_WEBUI = (
    '<details type="reasoning" done="true" duration="5">\n'
    "<summary>Thought for 5 seconds</summary>\n"
    "&gt; The user asks for a colour.\n</details>\nBlue."
)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>\nA colour.\n</think>\n\nBlue.", "Blue."),
        ("\n<think></think>Blue.", "Blue."),
        ("<thinking>A colour.</thinking> Blue.", "Blue."),
        ("<think>One.</think>\n<think>Two.</think>\nBlue.", "Blue."),
        ("A colour, as the\ntemplate opens the block.\n</think>\n\nBlue.", "Blue."),
        ("<think>A colour that never", ""),
        (OPEN_WEBUI, "Blue."),
        (f"Let me see.\n{OPEN_WEBUI}", "Let me see.\nBlue."),
    ],
)
def test_the_answer_is_what_follows_the_reasoning(text: str, answer: str) -> None:
    assert without_reasoning(text) == answer


@pytest.mark.parametrize(
    "text",
    [
        "Blue.",
        "  Blue.\n",
        "The model writes <think> and </think> around its reasoning.",
        "Use `<think>` first:\n```\n<think>\nx\n```",
        "<details>\n<summary>More</summary>\nBlue.\n</details>",
        "<thinker>Rodin</thinker>",
    ],
)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert without_reasoning(text) == text


def test_only_the_assistant_reasons() -> None:
    text = "<think>x</think>Blue."
    user, assistant = Message(role="user", content=text), Message(role="assistant", content=text)
    assert messages_without_reasoning([user, assistant]) == (
        user,
        Message(role="assistant", content="Blue."),
    )


@given(st.text(), st.text())
def test_reasoning_put_before_an_answer_is_removed(answer: str, reasoning: str) -> None:
    block = with_reasoning(answer.strip(), reasoning.replace("<", ""))
    assert without_reasoning(block) == without_reasoning(answer.strip()).strip()


@pytest.mark.parametrize(
    "piece", ["<think>", "<think></think>", "<details ", '<details type="r', "\n "]
)
def test_hostile_text_takes_linear_time(piece: str) -> None:
    """A quadratic search would take hours."""
    text = piece * (1_000_000 // len(piece)) + 'type="reasoning" </think>'
    assert len(without_reasoning(text)) <= len(text)
