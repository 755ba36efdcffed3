"""HTML: headings, paragraphs, lists, tables and definitions, without navigation and scripts."""

from html.parser import HTMLParser

from services.dataset.sources.document import (
    BlockKind,
    SourceBlock,
    SourceDocument,
    SourceSpan,
    SpanUnit,
    joined_lines,
    rendered_table,
)

# fmt: off
_IGNORED = frozenset({
    "script", "style", "nav", "footer", "aside", "form", "noscript", "template", "svg", "math",
    "iframe", "button", "select", "object", "canvas", "audio", "video", "dialog", "menu",
})
_BREAKING = frozenset({
    "address", "article", "blockquote", "body", "center", "details", "div", "dl", "fieldset",
    "figcaption", "figure", "header", "hr", "html", "main", "p", "section", "summary", "ul", "ol",
})
# fmt: on
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_STARTS = frozenset({*_HEADINGS, "li", "pre", "dt", "dd"})
_MAX_INDENT = 8


def read_html(text: str, unit: SpanUnit = "line") -> SourceDocument:
    """Read the blocks of a page. Places are lines of the file or, with the unit `paragraph`, the
    number of the block.

    The page is read in one pass without a tree, so depth costs nothing. Damaged markup never
    raises.
    """
    reader = _PageReader(unit)
    reader.feed(text)
    reader.close()
    reader.finish()
    headings = (block.text for block in reader.blocks if block.kind == "heading")
    return SourceDocument(
        title=joined_lines(reader.title) or next(headings, ""), blocks=tuple(reader.blocks)
    )


class _PageReader(HTMLParser):
    """Collects the blocks of a page. Any element that starts a block ends the one before it."""

    def __init__(self, unit: SpanUnit) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[SourceBlock] = []
        self.title = ""
        self._unit = unit
        self._ignored: tuple[str, int] | None = None
        self._in_title = False
        self._kind: BlockKind = "paragraph"
        self._level = 0
        self._lists: list[int | None] = []
        self._marker = ""
        self._term: str | None = None
        self._text: list[str] = []
        self._first_line = 1
        self._preformatted = False
        self._table: list[list[str]] | None = None
        self._table_line = 1
        self._has_header = False
        self._in_cell = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._ignored is not None:
            name, depth = self._ignored
            if tag == name:
                self._ignored = (name, depth + 1)
            return
        if tag in _IGNORED:
            self._ignored = (tag, 1)
            return
        if tag == "title":
            self._in_title = not self.title
        elif tag == "br":
            self._text.append("\n" if self._preformatted else " ")
        elif tag in ("td", "th", "tr", "table"):
            self._start_table_part(tag)
        elif self._table is not None:
            self._text.append(" ")
        elif tag in _STARTS:
            self._flush()
            self._start_block(tag)
        elif tag in _BREAKING:
            self._flush()
            if tag in ("ul", "ol"):
                self._lists.append(1 if tag == "ol" else None)

    def handle_endtag(self, tag: str) -> None:
        if self._ignored is not None:
            name, depth = self._ignored
            if tag == name:
                self._ignored = (name, depth - 1) if depth > 1 else None
            return
        if tag == "title":
            self._in_title = False
        elif tag in ("td", "th", "tr"):
            self._end_cell()
        elif tag == "table":
            self._end_table()
        elif self._table is not None:
            self._text.append(" ")
        elif tag in _STARTS or tag in _BREAKING:
            self._flush()
            if tag in _STARTS:
                self._kind, self._level = "paragraph", 0
            if tag in ("ul", "ol") and self._lists:
                self._lists.pop()
            if tag == "dl":
                self._term = None

    def handle_data(self, data: str) -> None:
        if self._ignored is not None:
            return
        if self._in_title:
            self.title += data
        elif self._table is None or self._in_cell:
            if not self._text and data.strip():
                blank = len(data) - len(data.lstrip())
                self._first_line = self.getpos()[0] + data.count("\n", 0, blank)
            self._text.append(data)

    def finish(self) -> None:
        """End what the page left open."""
        self._end_table()
        self._flush()

    def _start_block(self, tag: str) -> None:
        match tag:
            case "li":
                self._start_item()
            case "pre":
                self._kind, self._preformatted = "code", True
            case "dt":
                self._kind, self._term = "definition", ""
            case "dd":
                self._kind = "definition"
            case _:
                self._kind, self._level = "heading", _HEADINGS[tag]

    def _start_item(self) -> None:
        self._kind = "item"
        number = self._lists[-1] if self._lists else None
        indent = "  " * min(max(len(self._lists) - 1, 0), _MAX_INDENT)
        self._marker = f"{indent}- " if number is None else f"{indent}{number}. "
        if number is not None:
            self._lists[-1] = number + 1

    def _flush(self) -> None:
        """End the current block."""
        raw = "".join(self._text)
        text = raw.strip("\n").rstrip() if self._preformatted else joined_lines(raw)
        kind, level = self._kind, self._level
        self._text, self._kind, self._level, self._preformatted = [], "paragraph", 0, False
        if kind == "item":
            if not text:
                self._kind = "item"  # its text is in an element of its own
                return
            text = self._marker + text
        if not text.strip():
            if kind in ("heading", "definition"):
                self._kind, self._level = kind, level
            return
        if kind == "definition":
            if self._term == "":
                self._term = text
                return
            if self._term is None:
                kind = "paragraph"
        name = self._term if kind == "definition" else None
        self.blocks.append(
            SourceBlock(
                kind=kind, text=text, span=self._span(self._first_line), level=level, name=name
            )
        )

    def _start_table_part(self, tag: str) -> None:
        if tag == "table":
            if self._table is None:
                self._flush()
                self._table, self._table_line, self._has_header = [], self.getpos()[0], False
            return
        if self._table is None:
            return
        self._end_cell()
        if tag == "tr" or not self._table:
            self._table.append([])
        if tag != "tr":
            self._has_header |= tag == "th" and len(self._table) == 1
            self._in_cell = True

    def _end_cell(self) -> None:
        if self._table is not None and self._in_cell:
            self._table[-1].append(joined_lines("".join(self._text)))
            self._in_cell = False
            self._text = []

    def _end_table(self) -> None:
        if self._table is None:
            return
        self._end_cell()
        rows = tuple(tuple(row) for row in self._table if any(row))
        self._table, self._text = None, []
        if rows:
            self.blocks.append(
                SourceBlock(
                    kind="table",
                    text=rendered_table(rows),
                    span=self._span(self._table_line),
                    rows=rows,
                    has_header=self._has_header,
                )
            )

    def _span(self, first: int) -> SourceSpan:
        if self._unit == "line":
            return SourceSpan(unit="line", first=first, last=max(first, self.getpos()[0]))
        number = len(self.blocks) + 1
        return SourceSpan(unit=self._unit, first=number, last=number)
