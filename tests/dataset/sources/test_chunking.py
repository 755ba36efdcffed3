"""Chunks along headings, and their limits."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from services.dataset.sources.chunking import CHUNK_CHARACTERS, chunks_of
from services.dataset.sources.document import SourceBlock, SourceDocument, SourceSpan
from services.dataset.sources.markdown_files import read_markdown
from services.dataset.sources.plain_text import read_plain_text
from services.dataset.sources.reading import read_document

DOCUMENTS = Path(__file__).parent / "documents"


def test_each_heading_starts_a_chunk() -> None:
    document = read_document(DOCUMENTS / "guides" / "larkspur-manual.md")
    chunks = list(chunks_of("guides/larkspur-manual.md", document))
    top = "Larkspur L2 rain gauge"
    assert [chunk.headings for chunk in chunks] == [
        (top,),
        (top, "Mounting"),
        (top, "Power"),
        (top, "Terms"),
        (top, "Error codes"),
    ]
    assert chunks[1].source == "guides/larkspur-manual.md, lines 12 to 16"
    assert "4 Nm.\n- Point the arrow" in chunks[1].text
    assert chunks[3].text.startswith("Tip: one swing of the bucket")


def test_a_heading_of_a_higher_level_ends_those_below() -> None:
    document = read_markdown("## A\n\na\n\n### B\n\nb\n\n# C\n\nc\n")
    assert [chunk.headings for chunk in chunks_of("a", document)] == [("A",), ("A", "B"), ("C",)]


def test_a_large_table_is_divided_between_rows() -> None:
    rows = "".join(f"| Part {n} | {'x' * 40} |\n" for n in range(100))
    document = read_markdown(f"| Name | Text |\n|---|---|\n{rows}")
    tables = [block for chunk in chunks_of("a", document) for block in chunk.blocks]
    assert len(tables) > 2
    assert all(table.text.startswith("| Name | Text |\n|---|---|\n| Part") for table in tables)
    assert all(table.rows[0] == ("Name", "Text") for table in tables)
    names = [row[0] for table in tables for row in table.rows[1:]]
    assert names == [f"Part {n}" for n in range(100)]
    assert all(len(table.text) <= CHUNK_CHARACTERS for table in tables)


def test_long_paragraphs_are_divided_between_sentences() -> None:
    text = " ".join(f"Sentence number {n} ends here." for n in range(300))
    chunks = list(chunks_of("a", read_plain_text(text)))
    assert len(chunks) > 4
    assert all(len(chunk.text) <= CHUNK_CHARACTERS for chunk in chunks)
    assert all(chunk.text.endswith("ends here.") for chunk in chunks)
    assert " ".join(chunk.text for chunk in chunks) == text


@given(st.text(max_size=400), st.integers(min_value=40, max_value=120))
def test_no_character_is_lost_and_no_chunk_is_too_large(text: str, most: int) -> None:
    span = SourceSpan(unit="line", first=1, last=1)
    block = SourceBlock(kind="turn", text=text, span=span, name="Ines")
    document = SourceDocument(title="a", blocks=(block,))
    chunks = list(chunks_of("a", document, most))
    assert all(len(chunk.text) <= most for chunk in chunks)
    kept = "".join(block.text for chunk in chunks for block in chunk.blocks)
    assert "".join(kept.split()) == "".join(text.split())
