"""Conversations and answers as chat APIs and tracing tools write them, read as plain messages.

- A string that is JSON of messages is read as these messages: Langfuse and the attributes of
  OpenTelemetry store them so. The text inside a message is never parsed.
- Content parts of text are joined without a separator, as chat templates do.
- The role `developer` is read as `system`.
- Reasoning in a field or a part of its own becomes a block before the content.

What an example cannot carry (images, sound, files, tool calls) is refused by name.

Parts: https://platform.openai.com/docs/api-reference/chat/create and
https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-events/ (`parts` instead of `content`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import from_json, to_json

from shared.errors import ContractViolation
from shared.messaging.reasoning import with_reasoning
from shared.messaging.violations import kind_of, name_or_kind

_ROLES = {"system", "developer", "user", "assistant", "tool"}
_TEXT_PARTS = ("text", "input_text", "output_text")
_REASONING_PARTS = ("reasoning", "thinking", "redacted_thinking")
_REASONING_FIELDS = ("reasoning_content", "reasoning")
_BODIES = ("content", "parts", "tool_calls")
_CALLS = ("tool_calls", "function_call")


def plain_feedback(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data of feedback with plain messages as `input` and plain texts as answers.

    What is neither stays as it is, for validation. Raises ContractViolation, with the field, for
    content that an example cannot carry.
    """
    plain = dict(data)
    if isinstance(sent := data.get("input"), str | list):
        plain["input"] = _plain_input(sent)
    for field in ("output", "corrected_output"):
        if (sent := data.get(field)) is not None:
            plain[field] = _plain_answer(sent, field)
    if not isinstance(comment := data.get("comment", ""), str):
        plain["comment"] = to_json(comment).decode()  # Kept whatever a producer has called so.
    return plain


def parse_conversation(text: str) -> list[Any] | None:
    """Return the messages of a text that is JSON of a message list, of `{"messages": [...]}` or of
    one message; None for any other text.
    """
    if text.lstrip()[:1] not in ("[", "{") or '"role"' not in text:
        return None
    try:
        parsed = from_json(text)
    except ValueError:
        return None
    if isinstance(parsed, dict):
        parsed = parsed.get("messages", [parsed])
    return parsed if _is_conversation(parsed) else None


def parse_answer(text: str) -> Mapping[str, Any] | None:
    """Return the message of a text that is JSON of one assistant message, alone or in a list; None
    for any other text.
    """
    return _only_answer(parse_conversation(text))


def _plain_input(sent: str | list[Any]) -> Any:
    messages = parse_conversation(sent) if isinstance(sent, str) else sent
    if messages is None:
        return sent
    return [_plain_message(message, f"input.{place}") for place, message in enumerate(messages)]


def _plain_answer(sent: Any, field: str) -> Any:
    if isinstance(sent, str):
        message = parse_answer(sent)
    else:
        message = _only_answer(sent if isinstance(sent, list) else [sent])
    return sent if message is None else _plain_message(message, field).get("content")


def _is_conversation(value: Any) -> bool:
    return (
        isinstance(value, list)
        and all(_is_message(message) for message in value)
        and any(message["role"] in _ROLES for message in value)
    )


def _is_message(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("role"), str)
        and any(body in value for body in _BODIES)
    )


def _only_answer(messages: Sequence[Any] | None) -> Mapping[str, Any] | None:
    if messages is None or len(messages) != 1 or not _is_message(messages[0]):
        return None
    message: Mapping[str, Any] = messages[0]
    return message if message["role"] == "assistant" else None


def _plain_message(message: Any, field: str) -> Any:
    if not isinstance(message, dict):
        return message
    for name in _CALLS:
        if message.get(name):
            raise ContractViolation(
                "tool calls cannot be trained on; leave the conversation out, or write the call "
                "into the content as your application renders it",
                f"{field}.{name}",
            )
    plain = dict(message)
    if plain.get("role") == "developer":
        plain["role"] = "system"
    reasoning = [plain.get(name) for name in _REASONING_FIELDS]
    body = "parts" if plain.get("content") is None and "parts" in plain else "content"
    if isinstance(parts := plain.get(body), list):
        texts = []
        for place, part in enumerate(parts):
            if plain.get("role") == "assistant" and _is_reasoning(part):
                reasoning += [part.get(name) for name in ("thinking", "content", "text")]
            else:
                texts.append(_text_of(part, f"{field}.{body}.{place}"))
        plain["content"] = "".join(texts)
    found = [text for text in reasoning if isinstance(text, str) and text.strip()]
    if found and plain.get("role") == "assistant" and isinstance(plain.get("content"), str):
        plain["content"] = with_reasoning(plain["content"], found[0])
    return plain


def _is_reasoning(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") in _REASONING_PARTS


def _text_of(part: Any, field: str) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        raise ContractViolation(f"expected a content part, found {kind_of(part)}", field)
    kind = part.get("type")
    if kind not in _TEXT_PARTS:
        raise ContractViolation(
            f"only text can be trained on, found a part of type {name_or_kind(kind)}; leave the "
            "conversation out, or send the part's content as text",
            field,
        )
    name = "content" if "content" in part and "text" not in part else "text"
    text = part.get(name)
    if not isinstance(text, str):
        raise ContractViolation(f"expected a string, found {kind_of(text)}", f"{field}.{name}")
    return text
