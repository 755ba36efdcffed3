"""Formats of records: how each becomes examples, and how one is recognised by its keys."""

from collections.abc import Callable, Iterable, Mapping
from typing import get_args

from services.dataset.imports.conversations import (
    Role,
    Turn,
    answer_messages,
    conversation_examples,
    is_trained,
    parse_turns,
    prompt_messages,
    refuse_unsupported,
    system_messages,
)
from services.dataset.imports.preferences import openai_preference, preference
from services.dataset.imports.records import (
    Examples,
    ImportedExample,
    InvalidLine,
    RecordFields,
    non_blank,
    text_of,
    type_name,
)
from shared.events import Message, RecordFormat

_SPEAKERS: Mapping[str, Role] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
}


def examples_of(record: RecordFields, record_format: RecordFormat | None) -> Examples:
    """Yield the examples of a record; without a format, its keys decide. Raises InvalidLine."""
    yield from _PARSERS[record_format or recognise(record)](record)


def recognise(record: RecordFields) -> RecordFormat:
    """Return the first format whose keys a record has. Raises InvalidLine without one."""
    for record_format in get_args(RecordFormat):
        if all(record.get(key) is not None for key in _KEYS[record_format]):
            found: RecordFormat = record_format
            return found
    expected = "; ".join(", ".join(keys) for keys in _KEYS.values())
    raise InvalidLine(
        f"no known format: it has {named(record)}; expected the fields of one of: {expected}. "
        "--columns maps other names to them"
    )


def renamed(record: RecordFields, columns: Mapping[str, str]) -> RecordFields:
    """Return a record with the fields `columns` (name: its name in the file). Raises InvalidLine
    if one is absent.
    """
    if not columns:
        return record
    if absent := [source for source in columns.values() if source not in record]:
        raise InvalidLine(f"has no field {absent[0]!r}; it has {named(record)}")
    return {name: record[source] for name, source in columns.items()}


def named(record: RecordFields) -> str:
    """List the keys of a record for a message."""
    return ", ".join(repr(str(key)[:40]) for key in list(record)[:12]) or "no fields"


def _chat(record: RecordFields) -> Examples:
    refuse_unsupported(record)
    return conversation_examples(parse_turns(record.get("messages"), "messages"), "messages")


def _sharegpt(record: RecordFields) -> Examples:
    refuse_unsupported(record)
    turns = record.get("conversations")
    if not isinstance(turns, list) or not turns:
        raise InvalidLine("expected a list of {from, value}", "conversations")
    system = [Turn(message) for message in system_messages(record.get("system"))]
    return conversation_examples([*system, *_spoken(turns)], "conversations")


def _spoken(turns: Iterable[object]) -> Iterable[Turn]:
    for place, turn in enumerate(turns):
        field = f"conversations.{place}"
        if not isinstance(turn, Mapping):
            raise InvalidLine(f"expected {{from, value}}, found {type_name(turn)}", field)
        speaker = turn.get("from")
        role = _SPEAKERS.get(speaker) if isinstance(speaker, str) else None
        if role is None:
            raise InvalidLine(
                f"expected one of {', '.join(_SPEAKERS)}; tool calls and their results cannot be "
                "trained on",
                f"{field}.from",
            )
        message = Message(role=role, content=text_of(turn.get("value"), f"{field}.value"))
        yield Turn(message, is_trained(turn.get("weight"), role, f"{field}.weight"))


def _alpaca(record: RecordFields) -> Examples:
    if record.get("history"):
        raise InvalidLine("earlier turns are not supported; use the chat format", "history")
    instruction = non_blank(record.get("instruction"), "instruction")
    details = text_of(record.get("input") or "", "input")
    question = f"{instruction}\n\n{details}" if details.strip() else instruction
    yield ImportedExample(
        prompt_messages(question, "instruction", record.get("system")),
        non_blank(record.get("output"), "output"),
    )


def _completion(record: RecordFields) -> Examples:
    prompt = prompt_messages(record.get("prompt"), "prompt", record.get("system"))
    label = record.get("label")
    if label not in (None, True, False) or (isinstance(label, int) and not isinstance(label, bool)):
        raise InvalidLine("expected true (a good answer) or false (an answer to avoid)", "label")
    completion = answer_messages(record.get("completion"))
    if isinstance(completion, str):
        answer = non_blank(completion, "completion")
    else:
        turns = parse_turns(completion, "completion")
        if len(turns) != 1 or turns[0].message.role != "assistant":
            raise InvalidLine("expected a text, or one assistant message", "completion")
        answer = non_blank(turns[0].message.content, "completion.0.content")
    yield ImportedExample(prompt, answer, is_negative=label is False)


_KEYS: Mapping[RecordFormat, tuple[str, ...]] = {
    "preference": ("chosen", "rejected"),
    "openai-preference": ("input", "preferred_output", "non_preferred_output"),
    "chat": ("messages",),
    "sharegpt": ("conversations",),
    "alpaca": ("instruction", "output"),
    "completion": ("prompt", "completion"),
}

_PARSERS: Mapping[RecordFormat, Callable[[RecordFields], Examples]] = {
    "preference": preference,
    "openai-preference": openai_preference,
    "chat": _chat,
    "sharegpt": _sharegpt,
    "alpaca": _alpaca,
    "completion": _completion,
}
