"""PDF: the text layer of each page, read by PDFium. A page without text is reported."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c

from services.dataset.sources.document import (
    MAX_TEXT_CHARACTERS,
    Gap,
    SourceBlock,
    SourceDocument,
    SourceSpan,
    UnreadableDocument,
    joined_lines,
)

_MAX_PAGES = 3_000
_LARGER = 1.15
"""Ratio of a heading's letters to those of most lines."""
_MAX_HEADING = 120
_WIDER = 1.35
"""Ratio of the distance between paragraphs to that between lines."""
_MAX_LEVELS = 6
_LEAST_REPEATED_PAGES = 3
_DIGITS = re.compile(r"\d+")
_FILE_NAME = re.compile(
    r"^(?:microsoft \w+|untitled|document\s?\d*$)"
    r"|\.(?:docx?|odt|indd|pptx?|xlsx?|pdf|rtf|tex|dvi)$",
    re.IGNORECASE,
)
_HYPHEN = "\x02"
"""The mark of PDFium for a hyphen at the end of a line that divides a word."""


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of a page: text, size of its letters and upper edge in points."""

    page: int
    text: str
    size: float
    top: float


def read_pdf(data: bytes) -> SourceDocument:
    """Read the text layer of a file.

    Lines of larger letters are headings. The first and the last line of a page are left out if
    most pages have them, but for their numbers. A page without text becomes a gap. Raises
    UnreadableDocument for a file that is damaged, encrypted or too long.
    """
    try:
        pdf = pdfium.PdfDocument(data)
    except pdfium.PdfiumError as error:
        raise UnreadableDocument(
            f"not a readable PDF file, or one with a password ({error}); save it again without one"
        ) from error
    with pdf:
        count = len(pdf)
        if count > _MAX_PAGES:
            raise UnreadableDocument(f"has {count:,} pages; at most {_MAX_PAGES:,} are read")
        pages: list[list[_Line]] = []
        gaps: list[Gap] = []
        characters = 0
        for number in range(1, count + 1):
            lines, gap = _read_page(pdf, number)
            characters += sum(len(line.text) for line in lines)
            if characters > MAX_TEXT_CHARACTERS:
                raise UnreadableDocument(
                    f"has more than {MAX_TEXT_CHARACTERS:,} characters of text; divide it"
                )
            pages.append(lines)
            if gap is not None:
                gaps.append(gap)
        title = _title(pdf)
    repeated = _remove_repeated(pages)
    blocks = tuple(_blocks(pages))
    headings = (block.text for block in blocks if block.kind == "heading")
    return SourceDocument(
        title=title or next(headings, ""),
        blocks=blocks,
        gaps=tuple(gaps),
        repeated_lines=repeated,
    )


def _title(pdf: pdfium.PdfDocument) -> str:
    """Return the title of the metadata, empty if a program has put a file name there."""
    title = joined_lines(pdf.get_metadata_dict().get("Title", "")).strip("\0")
    return "" if _FILE_NAME.search(title) else title


def _read_page(pdf: pdfium.PdfDocument, number: int) -> tuple[list[_Line], Gap | None]:
    span = SourceSpan(unit="page", first=number, last=number)
    try:
        page = pdf[number - 1]
        text_page = page.get_textpage()
    except pdfium.PdfiumError as error:
        return [], Gap(span=span, reason=f"damaged ({error})")
    try:
        lines = list(_lines(text_page, number))
        if lines:
            return lines, None
        is_empty = next(iter(page.get_objects(max_depth=1)), None) is None
        return [], Gap(
            span=span,
            reason="empty" if is_empty else "no text layer (a scan or a picture); run OCR on it",
        )
    finally:
        text_page.close()
        page.close()


def _lines(text_page: pdfium.PdfTextPage, page: int) -> Iterator[_Line]:
    start = 0
    units: list[int] = []
    count = text_page.count_chars()
    for at in range(count + 1):
        unit = pdfium_c.FPDFText_GetUnicode(text_page, at) if at < count else 0x0A
        if unit not in (0x0A, 0x0D):
            if not units:
                start = at
            units.append(unit)
            continue
        text = _decoded(units).strip(" \t\0")
        units = []
        if text:
            size = pdfium_c.FPDFText_GetFontSize(text_page, start)
            top = text_page.get_charbox(start, loose=True)[3]
            yield _Line(page, text, size, top)


def _decoded(units: Sequence[int]) -> str:
    """Decode the UTF-16 code units of PDFium."""
    text = "".join(map(chr, units))
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _remove_repeated(pages: Sequence[list[_Line]]) -> int:
    """Remove running headers and footers; return the number of lines that are removed."""
    filled = [lines for lines in pages if lines]
    removed = 0
    for place in (0, -1):
        counts = Counter(_unnumbered(lines[place].text) for lines in filled if lines)
        least = max(_LEAST_REPEATED_PAGES, len(filled) // 2 + 1)
        for lines in filled:
            if lines and counts[_unnumbered(lines[place].text)] >= least:
                del lines[place]
                removed += 1
    return removed


def _unnumbered(text: str) -> str:
    return _DIGITS.sub("#", text.lower())


def _blocks(pages: Sequence[Sequence[_Line]]) -> Iterator[SourceBlock]:
    """Join lines to headings and paragraphs. A paragraph ends with its page."""
    lines = [line for page in pages for line in page]
    if not lines:
        return
    usual = median(size for line in lines for size in [line.size] * len(line.text))
    sizes = sorted({round(line.size, 1) for line in lines if _is_large(line, usual)}, reverse=True)
    distance = _usual_distance(lines)
    for group in _groups(lines, usual, distance):
        first = group[0]
        span = SourceSpan(unit="page", first=first.page, last=first.page)
        text = _joined(group)
        if _is_large(first, usual) and len(text) <= _MAX_HEADING:
            level = min(sizes.index(round(first.size, 1)) + 1, _MAX_LEVELS)
            yield SourceBlock(kind="heading", text=text, span=span, level=level)
        else:
            yield SourceBlock(kind="paragraph", text=text, span=span)


def _is_large(line: _Line, usual: float) -> bool:
    return line.size >= _LARGER * usual


def _usual_distance(lines: Sequence[_Line]) -> float:
    """Median distance between two lines of a page that follow each other."""
    distances = [
        above.top - below.top
        for above, below in pairwise(lines)
        if above.page == below.page and above.top > below.top
    ]
    return median(distances) if distances else 0.0


def _groups(lines: Iterable[_Line], usual: float, distance: float) -> Iterator[list[_Line]]:
    group: list[_Line] = []
    for line in lines:
        if group and not _continues(group[-1], line, usual, distance):
            yield group
            group = []
        group.append(line)
    if group:
        yield group


def _continues(above: _Line, line: _Line, usual: float, distance: float) -> bool:
    if above.page != line.page:
        return False
    if _is_large(above, usual) or _is_large(line, usual):
        return round(above.size, 1) == round(line.size, 1) and _is_near(above, line, 2 * line.size)
    return _is_near(above, line, _WIDER * distance)


def _is_near(above: _Line, line: _Line, most: float) -> bool:
    return 0 <= above.top - line.top <= most


def _joined(lines: Sequence[_Line]) -> str:
    text = ""
    for line in lines:
        if text.endswith(_HYPHEN):
            text = text.removesuffix(_HYPHEN) + line.text
        else:
            text = f"{text} {line.text}" if text else line.text
    return joined_lines(text.replace(_HYPHEN, "-"))
