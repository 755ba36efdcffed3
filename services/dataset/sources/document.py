"""Documents as their readers return them: blocks in order, each with its place in the file."""

from typing import Literal

from shared.errors import RatchetError
from shared.events import FrozenModel

MAX_TEXT_CHARACTERS = 4_000_000
"""Limit of the text of one document."""

BlockKind = Literal["heading", "paragraph", "item", "code", "table", "definition", "turn"]
SpanUnit = Literal["line", "page", "paragraph", "second"]


class UnreadableDocument(RatchetError):
    """A file that cannot be used as a document. The reason names no content of the file."""


class SourceSpan(FrozenModel):
    """A stretch of a file, both ends included. Lines, pages and paragraphs count from 1."""

    unit: SpanUnit
    first: int
    last: int

    def __str__(self) -> str:
        if self.first == self.last:
            return f"{self.unit} {self.first}"
        return f"{self.unit}s {self.first} to {self.last}"

    def until(self, other: "SourceSpan") -> "SourceSpan":
        """Return the stretch from the start of this one to the end of another one."""
        return SourceSpan(unit=self.unit, first=self.first, last=max(self.last, other.last))


class SourceBlock(FrozenModel):
    """A part of a document. `level` is that of a heading, from 1; `name` is the term of a
    definition or the speaker of a turn; `rows` are the cells of a table, its header first if
    `has_header`.
    """

    kind: BlockKind
    text: str
    span: SourceSpan
    level: int = 0
    name: str | None = None
    rows: tuple[tuple[str, ...], ...] = ()
    has_header: bool = False


class Gap(FrozenModel):
    """A stretch of a file that gave no text, with the reason."""

    span: SourceSpan
    reason: str


class SourceDocument(FrozenModel):
    """The content of one file. `title` is empty if the file has none; `repeated_lines` is the
    number of page headers and footers that were left out.
    """

    title: str
    blocks: tuple[SourceBlock, ...]
    gaps: tuple[Gap, ...] = ()
    repeated_lines: int = 0


def joined_lines(text: str) -> str:
    """Return a text on one line, with single blanks."""
    return " ".join(text.split())


def rendered_table(rows: tuple[tuple[str, ...], ...]) -> str:
    """Render the rows of a table as lines of cells between bars."""
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
