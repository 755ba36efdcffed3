"""Conversations that a base's chat template refuses are adapted by a stated rule, or refused with a
reason; all others are rendered as they are.
"""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.trainer.data.rendering import TemplateRefused, render
from shared.events import Message
from tests.trainer.data.chat_templates import GEMMA_2, MISTRAL, tokenizer_with

GEMMA, INSTRUCT = tokenizer_with(GEMMA_2), tokenizer_with(MISTRAL)


def conversation(*turns: str) -> list[Message]:
    """Messages from texts such as `user: hello`."""
    return [
        Message.model_validate({"role": role, "content": content})
        for role, content in (turn.split(": ", 1) for turn in turns)
    ]


@pytest.mark.parametrize("tokenizer", [GEMMA, INSTRUCT])
def test_accepted_conversations_are_rendered_unchanged(tokenizer: Any) -> None:
    messages = conversation("user: a", "assistant: b", "user: c")
    rendered = render(tokenizer, messages)
    expected = tokenizer.apply_chat_template(
        [message.model_dump() for message in messages], tokenize=False, add_generation_prompt=True
    )
    assert (rendered.text, rendered.is_adapted) == (expected, False)


@pytest.mark.parametrize(
    ("sent", "equal"),
    [
        (["user: a", "user: b"], ["user: a\n\nb"]),
        (["assistant: hello", "user: a"], ["user: a"]),
        (["user: a", "assistant: b", "assistant: c", "user: d"],
         ["user: a", "assistant: b\n\nc", "user: d"]),
        (["system: s", "user: a"], ["user: s\na"]),
        (["system: s", "system: t", "user: a"], ["user: s\n\nt\na"]),
        (["system: s", "assistant: hello", "user: a"], ["user: s\na"]),
    ],
)  # fmt: skip
def test_refused_conversations_are_adapted_by_the_rule(sent: list[str], equal: list[str]) -> None:
    rendered = render(GEMMA, conversation(*sent))
    assert rendered.is_adapted
    assert rendered.text == render(GEMMA, conversation(*equal)).text


@pytest.mark.parametrize(
    ("sent", "equal"),
    [
        (["user: a", "system: s", "user: b"], ["user: a\n\ns\nb"]),
        (
            ["user: a", "assistant: b", "user: c", "system: s"],
            ["user: a", "assistant: b", "user: c\ns"],
        ),
    ],
)
def test_a_later_system_message_joins_a_user_turn(sent: list[str], equal: list[str]) -> None:
    rendered = render(INSTRUCT, conversation(*sent))
    assert (rendered.is_adapted, rendered.text) == (
        True,
        render(INSTRUCT, conversation(*equal)).text,
    )


def test_only_what_the_template_refuses_is_adapted() -> None:
    """This template knows system messages, so only the turns of the user are joined."""
    rendered = render(INSTRUCT, conversation("system: s", "user: a", "user: b"))
    assert rendered.is_adapted
    assert rendered.text == render(INSTRUCT, conversation("system: s", "user: a\n\nb")).text


@pytest.mark.parametrize(
    "sent", [["user: a", "assistant: b", "tool: 4"], ["assistant: a"], ["system: s"]]
)
def test_what_cannot_be_adapted_is_refused(sent: list[str]) -> None:
    with pytest.raises(TemplateRefused, match=r"the chat template refuses it: .*role"):
        render(INSTRUCT if "tool: 4" in sent else GEMMA, conversation(*sent))


def test_any_error_of_a_template_is_a_refusal() -> None:
    for template in ("{{ messages[0].content + 5 }}", "{{ messages[0]['absent'].text }}", "{% if"):
        with pytest.raises(TemplateRefused):
            render(tokenizer_with(template), conversation("user: a"))


@given(st.lists(st.sampled_from(["user", "assistant", "system"]), max_size=8))
def test_every_conversation_with_a_user_is_rendered(roles: list[str]) -> None:
    messages = conversation(
        *(f"{role}: <{number}>" for number, role in enumerate(roles)), "user: q"
    )
    for tokenizer in (GEMMA, INSTRUCT):
        text = render(tokenizer, messages).text
        first = roles.index("user") if "user" in roles else len(roles)
        for number, role in enumerate(roles):
            assert (f"<{number}>" in text) is (role != "assistant" or number > first)
