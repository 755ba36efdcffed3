"""Readers of each type of file: structure, places, and what they leave out."""

from pathlib import Path

import pytest

from services.dataset.sources.document import SourceBlock, SourceDocument, UnreadableDocument
from services.dataset.sources.html_files import read_html
from services.dataset.sources.markdown_files import read_markdown
from services.dataset.sources.pdf_files import read_pdf
from services.dataset.sources.plain_text import read_plain_text
from services.dataset.sources.reading import read_document
from services.dataset.sources.transcripts import is_transcript, read_captions, read_transcript
from tests.support.documents import DocxTable, docx_of, docx_with_document, pdf_of

DOCUMENTS = Path(__file__).parent / "documents"


def seen(document: SourceDocument) -> list[tuple[str, str]]:
    return [(block.kind, block.text) for block in document.blocks]


def block_with(document: SourceDocument, text: str) -> SourceBlock:
    return next(block for block in document.blocks if text in block.text)


def test_markdown_keeps_structure_and_line_numbers() -> None:
    document = read_document(DOCUMENTS / "guides" / "larkspur-manual.md")
    assert document.title == "Larkspur L2 manual"
    headings = [(b.level, b.text) for b in document.blocks if b.kind == "heading"]
    assert headings == [
        (1, "Larkspur L2 rain gauge"),
        (2, "Mounting"),
        (2, "Power"),
        (2, "Terms"),
        (2, "Error codes"),
    ]
    lines = (DOCUMENTS / "guides" / "larkspur-manual.md").read_text().splitlines()
    clamp = block_with(document, "4 Nm")
    assert (clamp.kind, str(clamp.span)) == ("item", "line 15")
    assert lines[14] == clamp.text == "- Tighten the clamp to 4 Nm."
    prices = next(block for block in document.blocks if block.kind == "table")
    assert prices.has_header
    assert prices.rows[0] == ("Part", "Number", "Price")
    assert prices.rows[2] == ("Tipping bucket", "LK-2104", "31.00 EUR")
    assert "\n".join(lines[prices.span.first - 1 : prices.span.last]) == prices.text
    terms = {block.name: block.text for block in document.blocks if block.kind == "definition"}
    assert terms["Quiet mode"] == "the gauge sends one reading a day until the first tip."
    assert list(terms) == ["Tip", "Dry period", "Quiet mode"]


def test_markdown_with_html_and_code() -> None:
    document = read_markdown(
        "# A *b* `c`\n\n<details><p>inside</p></details>\n\n```sh\nrun it\n```\n\n> quoted\n"
        "\nTitle two\n---------\n\n**Note** is no term.\n"
    )
    assert seen(document) == [
        ("heading", "A b c"),
        ("paragraph", "inside"),
        ("code", "```sh\nrun it\n```"),
        ("paragraph", "> quoted"),
        ("heading", "Title two"),
        ("paragraph", "**Note** is no term."),
    ]


def test_html_without_navigation_and_scripts() -> None:
    document = read_document(DOCUMENTS / "guides" / "faq.html")
    assert document.title == "Larkspur questions"
    assert seen(document) == [
        ("heading", "Questions about the Larkspur L2"),
        ("heading", "How do I clean the funnel?"),
        (
            "paragraph",
            "Lift the funnel off, rinse it with warm water, and never use a brush of metal.",
        ),
        ("heading", "Can the gauge measure snow?"),
        ("paragraph", "No. Below 2 °C the gauge reports no data rather than a wrong figure."),
        ("heading", "Which gateways work?"),
        ("item", "- Heron G1, from firmware 3.2"),
        ("item", "- Heron G2"),
        ("definition", "The gateway that forwards readings to the Larkspur cloud."),
        ("definition", "The twelve characters printed below the base plate."),
        ("table", "| Gateway | Range |\n| Heron G1 | 2 km |\n| Heron G2 | 7 km |"),
    ]
    assert str(block_with(document, "Lift the funnel").span) == "lines 8 to 9"
    assert block_with(document, "twelve").name == "Pairing key"
    assert document.blocks[-1].has_header


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("<p>a<p>b", [("paragraph", "a"), ("paragraph", "b")]),
        ("<ol><li>a</li><li></li></ol><p>b", [("item", "1. a"), ("paragraph", "b")]),
        ("<ul><li>a<ul><li>b</ul></ul>", [("item", "- a"), ("item", "  - b")]),
        ("<pre>  a\n  b</pre>c", [("code", "  a\n  b"), ("paragraph", "c")]),
        ("</p></td></li></dl>a<td>b</td>", [("paragraph", "ab")]),
        ("<dd>a</dd>", [("paragraph", "a")]),
        ("<h2><div>a</div></h2>b", [("heading", "a"), ("paragraph", "b")]),
        ("<table><tr><td>a<table><td>b</table>", [("table", "| a | b |")]),
        ("<script>a</script><nav><nav>b</nav>c</nav>d", [("paragraph", "d")]),
        ("a<script>b", [("paragraph", "a")]),
    ],
)
def test_damaged_and_nested_html(page: str, expected: list[tuple[str, str]]) -> None:
    assert seen(read_html(page)) == expected


def test_deep_html_is_read() -> None:
    assert seen(read_html("<div>" * 200_000 + "deep")) == [("paragraph", "deep")]


def test_plain_text_with_headings_of_three_forms() -> None:
    document = read_document(DOCUMENTS / "guides" / "release-notes.txt")
    headings = [(b.level, b.text) for b in document.blocks if b.kind == "heading"]
    assert headings == [
        (1, "Larkspur firmware"),
        (2, "1.8 Quiet mode"),
        (2, "1.9 Faster pairing"),
        (1, "KNOWN PROBLEMS"),
    ]
    assert str(block_with(document, "30 percent").span) == "lines 6 to 7"
    assert seen(read_plain_text("Price: 5\n\nA SENTENCE.\n")) == [
        ("paragraph", "Price: 5"),
        ("paragraph", "A SENTENCE."),
    ]


def test_captions_keep_speakers_apart() -> None:
    document = read_document(DOCUMENTS / "meetings" / "support-call.vtt")
    assert [(block.name, block.text, str(block.span)) for block in document.blocks] == [
        ("Nadia", "How long does the warranty of the L2 last?", "seconds 1 to 4"),
        (
            "Tomas",
            "It lasts three years from the day of delivery, and the battery is covered for one "
            "year.",
            "seconds 4 to 11",
        ),
        ("Nadia", "Who pays for the parcel when a gauge is sent back?", "seconds 62 to 65"),
        (
            "Tomas",
            "We pay for it within the warranty, after that the customer does.",
            "seconds 65 to 69",
        ),
    ]


def test_subrip_with_rolling_lines_and_damaged_cues() -> None:
    document = read_captions(
        "1\r\n00:00:01,000 --> 00:00:02,000\r\n<i>Good day</i>\r\n\r\n"
        "2\r\n00:00:02,000 --> 00:00:03,000\r\nGood day\r\nand welcome &amp; thanks\r\n\r\n"
        "3\r\nnot a time --> at all\r\nlost\r\n\r\n"
        "4\r\n01:00:00,000 --> 01:00:02,500\r\n- ANNA: Yes.\r\n- Boris: No.\r\n"
    )
    assert [(block.name, block.text, block.span.first) for block in document.blocks] == [
        (None, "Good day and welcome & thanks", 1),
        ("ANNA", "Yes.", 3600),
        ("Boris", "No.", 3600),
    ]


def test_text_transcripts_are_recognised() -> None:
    path = DOCUMENTS / "meetings" / "team-meeting.txt"
    assert is_transcript(path.read_text())
    document = read_document(path)
    assert [(block.name, str(block.span)) for block in document.blocks] == [
        ("Ines", "line 1"),
        ("Tomas", "line 2"),
        ("Ines", "line 3"),
        ("Tomas", "lines 4 to 5"),
        ("Ines", "line 6"),
        ("Tomas", "line 7"),
    ]
    assert document.blocks[3].text.endswith("next year, with a heated funnel for snow.")
    assert not is_transcript("Name: Larkspur\nPrice: 5\nSize: 2\nWeight: 7\nColour: grey\n")
    assert read_transcript("words without a speaker").blocks[0].name is None


def test_pdf_has_headings_paragraphs_and_pages(tmp_path: Path) -> None:
    page = [
        ("Heron G2 data sheet", 20.0),
        ("", 10.0),
        ("The Heron G2 reaches gauges at up to 7 km", 10.0),
        ("in open country.", 10.0),
        ("", 10.0),
        ("It needs a supply of 12 V.", 10.0),
        ("Antenna", 14.0),
        ("The antenna has a gain of 6 dBi.", 10.0),
    ]
    path = tmp_path / "heron.pdf"
    path.write_bytes(pdf_of([page, [], [("Third page.", 10.0)], []], picture_pages=[1]))
    document = read_document(path)
    assert document.title == "Heron G2 data sheet"
    assert [(b.kind, b.level, b.text, str(b.span)) for b in document.blocks] == [
        ("heading", 1, "Heron G2 data sheet", "page 1"),
        ("paragraph", 0, "The Heron G2 reaches gauges at up to 7 km in open country.", "page 1"),
        ("paragraph", 0, "It needs a supply of 12 V.", "page 1"),
        ("heading", 2, "Antenna", "page 1"),
        ("paragraph", 0, "The antenna has a gain of 6 dBi.", "page 1"),
        ("paragraph", 0, "Third page.", "page 3"),
    ]
    assert [(str(gap.span), gap.reason) for gap in document.gaps] == [
        ("page 2", "no text layer (a scan or a picture); run OCR on it"),
        ("page 4", "empty"),
    ]


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Heron handbook", "Heron handbook"),
        ("Microsoft Word - Document1", "Heron G2"),
        ("heron_final2.indd", "Heron G2"),
        ("", "Heron G2"),
    ],
)
def test_the_title_of_a_pdf_is_no_file_name(title: str, expected: str) -> None:
    page = [("Heron G2", 20.0), ("It needs a supply of 12 V.", 10.0)]
    assert read_pdf(pdf_of([page], title=title)).title == expected


def test_running_headers_of_a_pdf_are_left_out() -> None:
    pages = [
        [("Larkspur manual", 8.0), (f"Text of page {n} is {word}.", 10.0), (f"Page {n}", 8.0)]
        for n, word in enumerate(("wet", "dry", "warm", "cold"), start=1)
    ]
    document = read_pdf(pdf_of(pages))
    assert document.repeated_lines == 8
    assert [block.text for block in document.blocks] == [
        "Text of page 1 is wet.",
        "Text of page 2 is dry.",
        "Text of page 3 is warm.",
        "Text of page 4 is cold.",
    ]


def test_docx_has_headings_and_tables(tmp_path: Path) -> None:
    path = tmp_path / "returns.docx"
    path.write_bytes(
        docx_of(
            [
                ("heading 1", "Returns & repairs"),
                ("", "A gauge is repaired within ten working days."),
                ("heading 2", "Prices"),
            ],
            DocxTable([["Repair", "Price"], ["Bucket", "25 EUR"]]),
        )
    )
    document = read_document(path)
    assert document.title == "Returns & repairs"
    assert [(b.kind, b.level, b.text, str(b.span)) for b in document.blocks] == [
        ("heading", 1, "Returns & repairs", "paragraph 1"),
        ("paragraph", 0, "A gauge is repaired within ten working days.", "paragraph 2"),
        ("heading", 2, "Prices", "paragraph 3"),
        ("table", 0, "| Repair | Price |\n| Bucket | 25 EUR |", "paragraph 4"),
    ]


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.md", b"", "is empty"),
        ("a.md", b"\n\n", "has no text"),
        ("a.txt", "é".encode("latin-1"), "is not text in utf-8; convert it with: iconv"),
        ("a.txt", b"a\0b", "is a binary file, not text"),
        ("a.html", b"<meta charset=klingon>a", "is not text in klingon"),
        ("a.html", b"<script>a</script>", "has no text"),
        ("a.txt", b"a" * 4_000_001, "more than 4,000,000 characters"),
        ("a.pdf", b"%PDF-1.4 nothing", "not a readable PDF file"),
        ("a.docx", b"nothing", "not a DOCX file"),
        ("a.docx", docx_of([])[:-30], "not a DOCX file"),
        ("a.docx", docx_with_document(b"<w:document"), "not a DOCX file, or a damaged one"),
        ("a.docx", docx_with_document(b" " * (65 << 20)), "65 MiB of XML; at most"),
    ],
)
def test_unreadable_files_have_a_reason(
    tmp_path: Path, name: str, data: bytes, reason: str
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(UnreadableDocument) as raised:
        read_document(path)
    assert reason in str(raised.value)


def test_encodings_that_a_file_names(tmp_path: Path) -> None:
    page = tmp_path / "a.html"
    page.write_bytes("<meta charset='iso-8859-1'><p>Größe".encode("latin-1"))
    assert read_document(page).blocks[0].text == "Größe"
    text = tmp_path / "a.txt"
    text.write_bytes("Größe".encode("utf-16"))
    assert read_document(text).blocks[0].text == "Größe"
    text.write_bytes("\ufeffGröße".encode())
    assert read_document(text).blocks[0].text == "Größe"
