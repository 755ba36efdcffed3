"""Replies of a teacher: JSON, also between code fences or after reasoning."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from shared.messaging.reasoning import without_reasoning

MAX_EXAMPLES = 50
_FENCE = re.compile(r"```[ \t]*\w*[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
_MAX_STARTS = 50


@dataclass(frozen=True, slots=True)
class TaughtExample:
    """A question, its answer, and the words of the passage that the answer rests on."""

    question: str
    answer: str
    quote: str


def parse_reply(text: str) -> tuple[TaughtExample, ...] | None:
    """Return the examples of a reply, None if it has no JSON of the requested form. Examples that
    lack a field are left out, as is the last one of a reply that was cut off.
    """
    single: list[TaughtExample] = []
    for value in _json_values(without_reasoning(text)):
        found = value.get("examples") if isinstance(value, dict) else value
        if isinstance(found, list):
            return tuple(filter(None, map(_example, found[:MAX_EXAMPLES])))
        if (example := _example(value)) is not None:
            single.append(example)
    return tuple(single[:MAX_EXAMPLES]) or None


def _json_values(text: str) -> Iterator[Any]:
    """Yield the JSON values in a text: all of it, a fenced part, or from the first brace on."""
    fenced = [match[1] for match in _FENCE.finditer(text)]
    for part in (text, *fenced):
        try:
            yield json.loads(part)
        except (ValueError, RecursionError):
            continue
    decoder = json.JSONDecoder()
    start = -1
    for _ in range(_MAX_STARTS):
        start = text.find("{", start + 1)
        if start < 0:
            return
        try:
            yield decoder.raw_decode(text, start)[0]
        except (ValueError, RecursionError):
            continue


def _example(value: Any) -> TaughtExample | None:
    if not isinstance(value, dict):
        return None
    fields = [value.get(name) for name in ("question", "answer", "quote")]
    question, answer, quote = (field.strip() if isinstance(field, str) else "" for field in fields)
    if not question or not answer:
        return None
    if any("\ud800" <= character <= "\udfff" for character in question + answer):
        return None
    return TaughtExample(question, answer, quote)
