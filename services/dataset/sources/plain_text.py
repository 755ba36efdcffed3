"""Plain text: paragraphs between blank lines, and headings that their form shows."""

import re
from collections.abc import Iterator, Sequence

from services.dataset.sources.document import SourceBlock, SourceDocument, SourceSpan

_UNDERLINE = re.compile(r"(=|-|~|\^|\*|#|\+)\1{2,}\s*$")
_NUMBERED = re.compile(r"(\d{1,3}(?:\.\d{1,3}){0,4})\.?\s+\S")
_MAX_HEADING = 80
_LEVELS = "=-~^*#+"


def read_plain_text(text: str) -> SourceDocument:
    """Split a text into paragraphs and headings.

    A heading is a line that is underlined as in reStructuredText, or a short line of its own that
    is numbered or in capitals and does not end like a sentence.
    """
    blocks = tuple(block for start, lines in _paragraphs(text) for block in _blocks(start, lines))
    title = next((block.text for block in blocks if block.kind == "heading"), "")
    return SourceDocument(title=title, blocks=blocks)


def _paragraphs(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the runs of lines that are not blank, each with the number of its first line."""
    lines: list[str] = []
    start = 1
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            if not lines:
                start = number
            lines.append(line.rstrip())
        elif lines:
            yield start, lines
            lines = []
    if lines:
        yield start, lines


def _blocks(start: int, lines: Sequence[str]) -> Iterator[SourceBlock]:
    if len(lines) >= 2 and (underline := _UNDERLINE.match(lines[1])) and _is_short(lines[0]):
        level = _LEVELS.index(underline[1]) + 1
        yield _heading(lines[0], start, start + 1, level)
        start, lines = start + 2, lines[2:]
    elif len(lines) == 1 and (level := _heading_level(lines[0])):
        yield _heading(lines[0], start, start, level)
        return
    if lines:
        span = SourceSpan(unit="line", first=start, last=start + len(lines) - 1)
        yield SourceBlock(kind="paragraph", text="\n".join(lines).strip(), span=span)


def _heading(line: str, first: int, last: int, level: int) -> SourceBlock:
    span = SourceSpan(unit="line", first=first, last=last)
    return SourceBlock(kind="heading", text=line.strip(), span=span, level=level)


def _heading_level(line: str) -> int:
    """Return the level of a line that is a heading, 0 for another line."""
    line = line.strip()
    if not _is_short(line) or line[-1] in ".,;:!":
        return 0
    if numbered := _NUMBERED.match(line):
        return numbered[1].count(".") + 1
    return int(line.isupper() and len(line) > 3)


def _is_short(line: str) -> bool:
    return len(line.strip()) <= _MAX_HEADING
