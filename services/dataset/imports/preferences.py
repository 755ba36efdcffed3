"""Preference pairs: a prompt with a chosen and a rejected answer (TRL and OpenAI DPO)."""

from collections.abc import Mapping
from itertools import takewhile
from typing import Any

from services.dataset.imports.conversations import (
    answer_messages,
    parse_turns,
    prompt_messages,
    refuse_unsupported,
    require_question,
    system_messages,
)
from services.dataset.imports.records import (
    Examples,
    ImportedExample,
    InvalidLine,
    RecordFields,
    non_blank,
    type_name,
)
from shared.events import Message


def preference(record: RecordFields) -> Examples:
    """Yield the example of `{prompt, chosen, rejected}`. Both answers are texts, or message lists
    that may repeat the prompt; without `prompt`, the prompt is what both have in common. Raises
    InvalidLine.
    """
    refuse_unsupported(record)
    if record.get("prompt") is not None:
        prompt = prompt_messages(record["prompt"], "prompt", record.get("system"))
        chosen, rejected = (
            _answer(record.get(field), field, prompt) for field in ("chosen", "rejected")
        )
    else:
        both = [_messages(record.get(field), field) for field in ("chosen", "rejected")]
        common = tuple(
            pair[0] for pair in takewhile(lambda pair: pair[0] == pair[1], zip(*both, strict=False))
        )
        require_question(common, "chosen")
        chosen, rejected = (
            _only_answer(messages[len(common) :], field)
            for messages, field in zip(both, ("chosen", "rejected"), strict=True)
        )
        prompt = (*system_messages(record.get("system")), *common)
    yield _pair(prompt, chosen, rejected)


def openai_preference(record: RecordFields) -> Examples:
    """Yield the example of OpenAI's `{input: {messages}, preferred_output, non_preferred_output}`.
    Raises InvalidLine.
    """
    source = record.get("input")
    if not isinstance(source, Mapping):
        raise InvalidLine(f"expected {{messages}}, found {type_name(source)}", "input")
    refuse_unsupported(source, "input")
    prompt = prompt_messages(source.get("messages"), "input.messages")
    fields = ("preferred_output", "non_preferred_output")
    chosen, rejected = (_answer(record.get(field), field, prompt) for field in fields)
    yield _pair(prompt, chosen, rejected)


def _pair(prompt: tuple[Message, ...], chosen: str, rejected: str) -> ImportedExample:
    if chosen.strip() == rejected.strip():
        raise InvalidLine("the chosen and the rejected answer are the same; remove the line")
    return ImportedExample(prompt, chosen, rejected)


def _answer(value: Any, field: str, prompt: tuple[Message, ...]) -> str:
    value = answer_messages(value)
    if isinstance(value, str):
        return non_blank(value, field)
    messages = _messages(value, field)
    spoken = tuple(message for message in prompt if message.role != "system")
    for repeated in (prompt, spoken):
        if messages[: len(repeated)] == repeated and len(messages) > len(repeated):
            return _only_answer(messages[len(repeated) :], field)
    return _only_answer(messages, field)


def _messages(value: Any, field: str) -> tuple[Message, ...]:
    turns = parse_turns([value] if isinstance(value, Mapping) else value, field)
    return tuple(turn.message for turn in turns)


def _only_answer(messages: tuple[Message, ...], field: str) -> str:
    if len(messages) != 1 or messages[0].role != "assistant":
        raise InvalidLine(
            "expected one assistant message after the prompt; pairs that differ in several turns "
            "cannot be trained on",
            field,
        )
    return non_blank(messages[0].content, field)
