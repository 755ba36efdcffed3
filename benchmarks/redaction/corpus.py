"""The labelled corpus: each text of `texts/` in several variations."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from benchmarks.redaction.values import LABELS, VALUES

VARIATIONS = 12
"""Variations of a text with slots. A text without any occurs once."""
TEXTS = Path(__file__).parent / "texts"
_SLOT = re.compile("«([a-z0-9]+)»")


@dataclass(frozen=True, slots=True)
class Span:
    """Personal data or a secret of one kind, from `start` to `end` in characters."""

    start: int
    end: int
    kind: str


@dataclass(frozen=True, slots=True)
class LabelledText:
    """A text with all personal data and secrets in it. The genre is the name of its file."""

    genre: str
    text: str
    spans: tuple[Span, ...]


def corpus() -> Iterator[LabelledText]:
    """Yield the texts, always the same."""
    for file in sorted(TEXTS.glob("*.txt")):
        for number, template in enumerate(file.read_text("utf-8").rstrip("\n").split("\n=====\n")):
            for variation in range(VARIATIONS if _SLOT.search(template) else 1):
                yield _filled(file.stem, template, Random(f"{file.stem} {number} {variation}"))


def _filled(genre: str, template: str, random: Random) -> LabelledText:
    text, spans, end = "", [], 0
    for slot in _SLOT.finditer(template):
        text += template[end : slot.start()]
        value = VALUES[slot[1]](random)
        if (kind := LABELS.get(slot[1])) is not None:
            spans.append(Span(len(text), len(text) + len(value), kind))
        text, end = text + value, slot.end()
    return LabelledText(genre, text + template[end:], tuple(spans))
