"""Markdown: CommonMark with tables. Text stays as it is written, with its markup."""

import re
from collections.abc import Iterator, Sequence

from markdown_it import MarkdownIt
from markdown_it.token import Token

from services.dataset.sources.document import SourceBlock, SourceDocument, SourceSpan, joined_lines
from services.dataset.sources.html_files import read_html

_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_TITLE = re.compile(r"^title:[ \t]*[\"']?(.+?)[\"']?[ \t]*$", re.MULTILINE)
_TERM = re.compile(
    r"(?:[-*+]|\d+[.)])?\s*(?:\*\*|__)(.{1,80}?)(?::(?:\*\*|__)|(?:\*\*|__)\s*(?::|[–—]|\s-\s))\s*(\S.*)",
    re.DOTALL,
)


def read_markdown(text: str) -> SourceDocument:
    """Read the blocks of a document. The title is that of the front matter, else the first heading.

    An item of a list, or a paragraph, that begins with a term in bold and a colon or a dash is a
    definition.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    title = ""
    if front := _FRONT_MATTER.match(text):
        title = found[1] if (found := _TITLE.search(front[1])) else ""
        text = "\n" * front[0].count("\n") + text[front.end() :]
    lines = text.split("\n")
    blocks = tuple(_blocks(MarkdownIt("commonmark").enable("table").parse(text), lines))
    headings = (block.text for block in blocks if block.kind == "heading")
    return SourceDocument(title=title or next(headings, ""), blocks=blocks)


def _blocks(tokens: Sequence[Token], lines: Sequence[str]) -> Iterator[SourceBlock]:
    at = 0
    while at < len(tokens):
        token = tokens[at]
        end = _end_of(tokens, at)
        yield from _block(token, tokens[at : end + 1], lines)
        at = end + 1


def _end_of(tokens: Sequence[Token], start: int) -> int:
    """Return the place of the token that closes the one at `start`."""
    level = tokens[start].level
    if tokens[start].nesting != 1:
        return start
    return next(
        at
        for at in range(start + 1, len(tokens))
        if tokens[at].nesting == -1 and tokens[at].level == level
    )


def _block(token: Token, inside: Sequence[Token], lines: Sequence[str]) -> Iterator[SourceBlock]:
    if token.map is None:
        return
    source, span = _source(token.map, lines)
    match token.type:
        case "heading_open":
            text = joined_lines(_plain(inside[1]))
            if text:
                yield SourceBlock(kind="heading", text=text, span=span, level=int(token.tag[1]))
        case "bullet_list_open" | "ordered_list_open":
            for place, item in enumerate(inside):
                if item.type == "list_item_open" and item.level == token.level + 1:
                    yield from _item(inside[place], lines)
        case "table_open":
            rows = tuple(_rows(inside))
            yield SourceBlock(kind="table", text=source, span=span, rows=rows, has_header=True)
        case "fence" | "code_block":
            if token.content.strip():
                yield SourceBlock(kind="code", text=source, span=span)
        case "html_block":
            for block in read_html(token.content).blocks:
                yield block.model_copy(update={"span": span})
        case "paragraph_open" | "blockquote_open":
            yield _definition(source, span) or SourceBlock(kind="paragraph", text=source, span=span)


def _source(place: Sequence[int], lines: Sequence[str]) -> tuple[str, SourceSpan]:
    """Return the lines of a token as they are written, and their place, without blank lines at the
    end.
    """
    source = "\n".join(lines[place[0] : place[1]]).rstrip()
    first = place[0] + 1
    return source, SourceSpan(unit="line", first=first, last=first + source.count("\n"))


def _item(token: Token, lines: Sequence[str]) -> Iterator[SourceBlock]:
    if token.map is None:
        return
    source, span = _source(token.map, lines)
    if source.strip():
        yield _definition(source, span) or SourceBlock(kind="item", text=source, span=span)


def _definition(source: str, span: SourceSpan) -> SourceBlock | None:
    found = _TERM.match(source)
    if found is None:
        return None
    return SourceBlock(
        kind="definition", text=joined_lines(found[2]), span=span, name=joined_lines(found[1])
    )


def _rows(tokens: Sequence[Token]) -> Iterator[tuple[str, ...]]:
    row: list[str] = []
    for token in tokens:
        if token.type == "inline":
            row.append(joined_lines(_plain(token)))
        elif token.type == "tr_close":
            yield tuple(row)
            row = []


def _plain(token: Token) -> str:
    """Return the text of an inline token without its markup."""
    return "".join(
        " " if child.type in ("softbreak", "hardbreak") else child.content
        for child in token.children or ()
        if child.type in ("text", "code_inline", "softbreak", "hardbreak", "image", "text_special")
    )
