"""Write the PDF and Word documents of the handbook from their Markdown sources.

Run `python -m examples.handbook.write_documents` after a change in `sources`.
"""

import textwrap
from collections.abc import Iterable
from pathlib import Path

from services.dataset.sources.document import SourceBlock
from services.dataset.sources.markdown_files import read_markdown
from tests.support.documents import DocxTable, PdfLine, docx_of, pdf_of

FOLDER = Path(__file__).parent
BINARY_DOCUMENTS = ("installation.pdf", "maintenance.docx", "sensors.docx")
LETTERS, LINE_LENGTH = 11.0, 84
HEADINGS = {1: 20.0, 2: 15.0}
PAGE_HEIGHT = 620.0
"""Sum of the letter sizes of a page's lines, in points."""


def pdf(blocks: Iterable[SourceBlock], title: str) -> bytes:
    """Lay out headings and paragraphs. A block is never divided between pages."""
    pages: list[list[PdfLine]] = [[]]
    for block in blocks:
        size = HEADINGS.get(block.level, LETTERS)
        lines = [("", LETTERS), *((line, size) for line in textwrap.wrap(block.text, LINE_LENGTH))]
        if sum(height for _, height in (*pages[-1], *lines)) > PAGE_HEIGHT:
            pages.append([])
        pages[-1] += lines
    return pdf_of(pages, title=title)


def docx(blocks: Iterable[SourceBlock]) -> bytes:
    """Convert headings, paragraphs and tables."""
    return docx_of(
        *(
            DocxTable(block.rows)
            if block.rows
            else [(f"heading {block.level}" if block.level else "", " ".join(block.text.split()))]
            for block in blocks
        )
    )


def document_of(name: str) -> bytes:
    """Return the document that is made from the source of this name."""
    source = (FOLDER / "sources" / name).with_suffix(".md").read_text(encoding="utf-8")
    document = read_markdown(source)
    if name.endswith(".pdf"):
        return pdf(document.blocks, document.title)
    return docx(document.blocks)


def main() -> None:
    for name in BINARY_DOCUMENTS:
        (FOLDER / "documents" / name).write_bytes(document_of(name))


if __name__ == "__main__":
    main()
