"""Reasoning that a model writes before its answer, and the answer without it.

- `<think>...</think>` or `<thinking>...</thinking>` at the beginning of a text; if its end is
  missing, so is the answer;
- text up to a line `</think>`, from models whose chat template has opened the block;
- `<details type="reasoning">...</details>`, as Open WebUI stores it.
"""

import re
from collections.abc import Sequence

from shared.events import Message

_MARKS = ("<think", "</think", 'type="reasoning"')
_THINK = re.compile(r"\s*<(think|thinking)>.*?(?:</\1>|\Z)", re.DOTALL)
_THINK_END = re.compile(r"^[ \t]*</(?:think|thinking)>[ \t]*$", re.MULTILINE)
# The attributes are bounded, so that the time is linear in the length of the text.
_DETAILS = re.compile(
    r'<details\b[^<>]{0,500}?\btype="reasoning"[^<>]{0,500}>.*?(?:</details>\s*|\Z)', re.DOTALL
)


def without_reasoning(text: str) -> str:
    """Return the answer in a text; the text itself if it has no reasoning."""
    if not any(mark in text for mark in _MARKS):
        return text
    answer = _DETAILS.sub("", text)
    end = 0
    while block := _THINK.match(answer, end):
        end = block.end()
    if end == 0 and (line := _THINK_END.search(answer)):
        end = line.end()
    answer = answer[end:]
    return text if len(answer) == len(text) else answer.strip()


def with_reasoning(text: str, reasoning: str) -> str:
    """Return a text with its reasoning, which was apart from it, as a block before it."""
    return f"<think>\n{reasoning.strip()}\n</think>\n\n{text}"


def messages_without_reasoning(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return messages without reasoning in the assistant's."""
    return tuple(
        message.model_copy(update={"content": answer})
        if message.role == "assistant"
        and (answer := without_reasoning(message.content)) != message.content
        else message
        for message in messages
    )
