"""Conversations in the message lists of OpenAI's formats, as records carry them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from services.dataset.imports.records import (
    Examples,
    ImportedExample,
    InvalidLine,
    non_blank,
    text_of,
    type_name,
)
from shared.events import Message
from shared.messaging.chat_formats import parse_answer, parse_conversation

MAX_ANSWERS = 200
"""Answers of one conversation: each becomes an example that repeats the turns before it."""

Role = Literal["system", "user", "assistant", "tool"]
_ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
_MESSAGE_KEYS = ("role", "content", "weight")
_UNSUPPORTED = {
    "tool_calls": "tool calls cannot be trained on; leave out the line, or write the call into the "
    "content as your application renders it",
    "function_call": "function calls cannot be trained on; leave out the line, or write the call "
    "into the content as your application renders it",
    "tools": "tool definitions cannot be trained on; remove them if no answer needs them",
    "functions": "function definitions cannot be trained on; remove them if no answer needs them",
}


@dataclass(frozen=True, slots=True)
class Turn:
    """A message; `is_trained` is False for an assistant message with weight 0."""

    message: Message
    is_trained: bool = True


def parse_turns(value: Any, field: str) -> list[Turn]:
    """Parse a list of `{role, content}`, or a text that is JSON of one. Raises InvalidLine with the
    field of the error.
    """
    if isinstance(value, str):
        value = parse_conversation(value) or value
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise InvalidLine(f"expected a list of messages, found {type_name(value)}", field)
    if not value:
        raise InvalidLine("is an empty list", field)
    return [_turn(message, f"{field}.{place}") for place, message in enumerate(value)]


def conversation_examples(turns: Sequence[Turn], field: str) -> Examples:
    """Yield an example for each assistant message that is trained, with the messages before it.

    Raises InvalidLine for a conversation that has none, does not end with one, or starts with one.
    """
    if turns[-1].message.role != "assistant":
        raise InvalidLine(
            f"the last message has the role {turns[-1].message.role}; expected the assistant's "
            "answer",
            field,
        )
    answers = [
        place
        for place, turn in enumerate(turns)
        if turn.message.role == "assistant" and turn.is_trained
    ]
    if not answers:
        raise InvalidLine("all assistant messages have weight 0: there is no answer to train on")
    if len(answers) > MAX_ANSWERS:
        raise InvalidLine(f"has {len(answers)} answers, at most {MAX_ANSWERS}; split it", field)
    messages = tuple(turn.message for turn in turns)
    for place in answers:
        require_question(messages[:place], f"{field}.{place}")
        non_blank(messages[place].content, f"{field}.{place}.content")
    for place in answers:
        yield ImportedExample(messages[:place], messages[place].content)


def require_question(prompt: Sequence[Message], field: str) -> None:
    """Raise InvalidLine if no user or tool speaks in a prompt."""
    if not any(message.role in ("user", "tool") and message.content.strip() for message in prompt):
        raise InvalidLine("no user message before the answer", field)


def prompt_messages(value: Any, field: str, system: Any = None) -> tuple[Message, ...]:
    """Parse a prompt: a text, which becomes a user message, or a list of messages, also as JSON in
    a text; with the record's system message, if any, before it. Raises InvalidLine.
    """
    prompt = (
        (Message(role="user", content=non_blank(value, field)),)
        if isinstance(value, str) and parse_conversation(value) is None
        else tuple(turn.message for turn in parse_turns(value, field))
    )
    require_question(prompt, field)
    return (*system_messages(system), *prompt)


def answer_messages(value: Any) -> Any:
    """Return the message list of an answer that is a text with JSON of one assistant message; other
    answers unchanged.
    """
    message = parse_answer(value) if isinstance(value, str) else None
    return value if message is None else [message]


def system_messages(value: Any) -> tuple[Message, ...]:
    """Return the system message of a record's `system` field; none if it is absent or blank."""
    text = "" if value is None else text_of(value, "system")
    return (Message(role="system", content=text),) if text.strip() else ()


def refuse_unsupported(record: Mapping[str, Any], field: str = "") -> None:
    """Raise InvalidLine for content that an example cannot carry."""
    for key, reason in _UNSUPPORTED.items():
        if record.get(key):
            raise InvalidLine(reason, f"{field}.{key}" if field else key)


def _turn(value: Any, field: str) -> Turn:
    if not isinstance(value, Mapping):
        raise InvalidLine(f"expected {{role, content}}, found {type_name(value)}", field)
    refuse_unsupported(value, field)
    role_name = value.get("role")
    role = _ROLES.get(role_name) if isinstance(role_name, str) else None
    if role is None:
        raise InvalidLine(f"expected one of {', '.join(_ROLES)}", f"{field}.role")
    for key, content in value.items():
        if key not in _MESSAGE_KEYS and content not in (None, "", [], {}):
            raise InvalidLine("an example cannot carry it; remove it", f"{field}.{str(key)[:80]}")
    message = Message(role=role, content=_content(value.get("content"), f"{field}.content"))
    return Turn(message, is_trained(value.get("weight"), role, f"{field}.weight"))


def is_trained(weight: Any, role: Role, field: str) -> bool:
    """Interpret a message's weight: 0 keeps it as context only. Raises InvalidLine for others."""
    if weight is None:
        return True
    if isinstance(weight, bool) or weight not in (0, 1):
        raise InvalidLine("expected 0 (context only) or 1 (trained on)", field)
    if role != "assistant":
        raise InvalidLine("only assistant messages are trained on; remove it", field)
    return bool(weight)


def _content(value: Any, field: str) -> str:
    """Return a text, also from a list of text parts. Raises InvalidLine for other parts."""
    if not isinstance(value, list):
        return text_of(value, field)
    texts = []
    for place, part in enumerate(value):
        if not isinstance(part, Mapping) or part.get("type") != "text":
            raise InvalidLine(
                "only text parts can be trained on, no images, sound or files; leave out the line",
                f"{field}.{place}",
            )
        texts.append(text_of(part.get("text"), f"{field}.{place}.text"))
    return "".join(texts)
