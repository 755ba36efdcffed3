"""Chunks of a document, along its headings."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from services.dataset.sources.document import SourceBlock, SourceDocument, SourceSpan

CHUNK_CHARACTERS = 2_000
"""Size that a chunk does not exceed, without its headings: about 500 tokens of English."""

_SENTENCE = re.compile(r"(?<=[.!?。！？])[\"'”’)]*\s+|(?<=[。！？])|\n+")
_WORD = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A stretch of a document under one heading. `headings` are those above it, the outermost
    first. The text is that of the blocks, in their order.
    """

    document: str
    title: str
    headings: tuple[str, ...]
    blocks: tuple[SourceBlock, ...]

    @property
    def text(self) -> str:
        """The text of the blocks."""
        text = ""
        previous: SourceBlock | None = None
        for block in self.blocks:
            if previous is not None:
                is_list = previous.kind == block.kind and block.kind in ("item", "definition")
                text += "\n" if is_list else "\n\n"
            text += block_text(block)
            previous = block
        return text

    @property
    def span(self) -> SourceSpan:
        """The place of the blocks."""
        return self.blocks[0].span.until(self.blocks[-1].span)

    @property
    def source(self) -> str:
        """The document and the place in it, for people."""
        return f"{self.document}, {self.span}"


def block_text(block: SourceBlock) -> str:
    """Return the text of a block, with its term or its speaker."""
    return block.text if block.name is None else f"{block.name}: {block.text}"


def chunks_of(
    name: str, document: SourceDocument, most_characters: int = CHUNK_CHARACTERS
) -> Iterator[Chunk]:
    """Yield the chunks of a document. Each heading starts one, and so does the limit of the size.
    A block that is larger than the limit is divided between sentences, else between words.
    """
    headings: list[tuple[int, str]] = []
    blocks: list[SourceBlock] = []
    size = 0

    def finished() -> Iterator[Chunk]:
        if blocks:
            path = tuple(text for _, text in headings)
            yield Chunk(name, document.title, path, tuple(blocks))

    for block in document.blocks:
        if block.kind == "heading":
            yield from finished()
            blocks, size = [], 0
            headings = [above for above in headings if above[0] < block.level]
            headings.append((block.level, block.text))
            continue
        for part in _parts(block, most_characters):
            length = len(block_text(part)) + 2
            if blocks and size + length > most_characters:
                yield from finished()
                blocks, size = [], 0
            blocks.append(part)
            size += length
    yield from finished()


def _parts(block: SourceBlock, most: int) -> Iterator[SourceBlock]:
    """Yield a block, divided if it is too large."""
    room = most - 2 - len(block_text(block)) + len(block.text)
    if len(block.text) <= room:
        yield block
    elif block.kind == "table":
        yield from _tables(block, room)
    else:
        for text in _divided(block.text, max(room, most // 2), (_SENTENCE, _WORD)):
            yield block.model_copy(update={"text": text})


def _tables(block: SourceBlock, room: int) -> Iterator[SourceBlock]:
    """Yield the rows of a large table, as tables with the same header."""
    lines = block.text.split("\n")
    extra = len(lines) - len(block.rows)
    head = (1 + extra) if block.has_header else 0
    header, body = lines[:head], lines[head:]
    cells = block.rows[1:] if block.has_header else block.rows
    if extra not in (0, 1) or len(body) != len(cells):
        header, body, cells = [], list(map(" | ".join, block.rows)), block.rows
    start = 0
    size = used = sum(map(len, header))
    for at, line in enumerate(body):
        if at > start and size + len(line) + 1 > room:
            yield _table(block, header, body, cells, start, at)
            start, size = at, used
        size += len(line) + 1
    yield _table(block, header, body, cells, start, len(body))


def _table(
    block: SourceBlock,
    header: Sequence[str],
    body: Sequence[str],
    cells: Sequence[tuple[str, ...]],
    start: int,
    end: int,
) -> SourceBlock:
    rows = (block.rows[0], *cells[start:end]) if header else tuple(cells[start:end])
    return block.model_copy(
        update={
            "text": "\n".join([*header, *body[start:end]]),
            "rows": rows,
            "has_header": bool(header),
        }
    )


def _divided(text: str, most: int, borders: Sequence[re.Pattern[str]]) -> Iterator[str]:
    """Yield parts of at most `most` characters, divided at the first kind of border that serves,
    else anywhere.
    """
    if len(text) <= most:
        if text.strip():
            yield text.strip()
        return
    if not borders:
        yield from (text[at : at + most] for at in range(0, len(text), most))
        return
    part = ""
    for piece in _pieces(text, borders[0]):
        if len(part) + len(piece) > most:
            yield from _divided(part, most, borders[1:])
            part = ""
        part += piece
    yield from _divided(part, most, borders[1:])


def _pieces(text: str, border: re.Pattern[str]) -> Iterator[str]:
    """Yield the pieces between borders, each with the border after it."""
    start = 0
    for found in border.finditer(text):
        if found.end() > start:
            yield text[start : found.end()]
            start = found.end()
    yield text[start:]
