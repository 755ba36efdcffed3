"""Segments of a text: sentences of prose, and lines of code or structured data.

Two segments with the same key are equal for a comparison.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from zlib import crc32

from services.dataset.ledger.similarity.tokens import (
    CLOSINGS,
    Token,
    numbers_of,
    tokens_of,
    without_fillers,
)

_FENCE = "```"
_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|(?<=[。！？؟।॥])\s*|\s[-–—]\s(?=\D)")
_CODE = re.compile(
    r"[;{}\\]\s*$"
    r"|^\s*(?:def|class|for|if|elif|while|with|return|import|from|const|let|var|function)\b"
    r".*(?:[:=({;]|[-+*/%<>]|\b(?:and|or|not)\b)"
    r"|^\s*(?:SELECT|INSERT|UPDATE|DELETE|CREATE|ALTER)\b"
    r"|[\w\])]\([^()]*\)[:;,)\]]*\s*$"
    r"|(?<!\S)[\w.\[\]]+\s*(?:[-+*/%|&^]?=|:=)\s*\S"
    r"|[=!<>]=|=>|->|::|</|/>|\$\w|\s--?[A-Za-z]"
)
_SIGNATURE_LINES, _SIGNATURE_LENGTH = 2, 60
_BULLET = re.compile(r"^\s*[*+•·-]\s+")
_BLANKS = re.compile(r"(?<=\S)\s+")


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment by its key: the line for code, else the texts of its tokens. `tokens` is None for
    code.
    """

    key: object
    tokens: tuple[Token, ...] | None


@lru_cache(maxsize=32)
def segments_of(text: str) -> tuple[Segment, ...]:
    """Return the segments of a text. JSON is one segment, whatever its spacing and the order of its
    keys. A sentence of politeness only is no segment, unless the text has no other.
    """
    if (structured := _canonical_json(text)) is not None:
        return (Segment(structured, None),)
    segments = list(_lines(text))
    substantial = [segment for segment in segments if segment.tokens is None or segment.tokens]
    return tuple(substantial) or (Segment(text.casefold().strip(), None),)


def figures_of(text: str) -> int:
    """Return a checksum of a text's figures. Two texts with different figures have no similarity,
    which saves comparing them.
    """
    if (structured := _canonical_json(text)) is not None:
        return crc32(structured.encode())
    if "\n" in text:
        text = "\n".join(_without_signature(text.splitlines()))
    return crc32(" ".join(sorted(numbers_of(text))).encode())


def _lines(text: str) -> Iterator[Segment]:
    fenced = False
    for line in _without_signature(text.splitlines()):
        if line.lstrip().startswith(_FENCE):
            fenced = not fenced
            yield Segment(line.strip(), None)
        elif fenced or _CODE.search(line):
            if code := _BLANKS.sub(" ", line.rstrip()):
                yield Segment(code, None)
        else:
            for sentence in _SENTENCE_END.split(_BULLET.sub("", line)):
                tokens = without_fillers(tokens_of(sentence))
                yield Segment(tuple(token.text for token in tokens), tokens)


def _without_signature(lines: list[str]) -> list[str]:
    """Return the lines of a letter up to its closing, if only a name can follow there."""
    written = [at for at, line in enumerate(lines) if line.strip()]
    for at in written[-_SIGNATURE_LINES - 1 :]:
        if (
            len(lines[at]) <= _SIGNATURE_LENGTH
            and tuple(token.text for token in tokens_of(lines[at])) in CLOSINGS
            and all(len(line) <= _SIGNATURE_LENGTH for line in lines[at:])
        ):
            return lines[:at]
    return lines


def _canonical_json(text: str) -> str | None:
    """Return JSON of an object or array in one spelling; None for other text."""
    stripped = text.strip()
    if not stripped.startswith(("{", "[")):
        return None
    try:
        return json.dumps(json.loads(stripped), sort_keys=True, ensure_ascii=False)
    except (ValueError, RecursionError):
        return None
