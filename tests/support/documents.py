"""PDF and DOCX files made of a few lines, as an editor would write them."""

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

PdfLine = tuple[str, float]
"""A line of text and the size of its letters, in points."""


@dataclass(frozen=True)
class DocxTable:
    """A table of a DOCX file, its header first."""

    rows: Sequence[Sequence[str]]


_CONTENT_TYPES = """\
<?xml version="1.0" encoding="UTF-8"?>
<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">
<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>
<Default Extension="xml" ContentType="application/xml"/>
<Override PartName="/word/document.xml" ContentType=\
"application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/>
</Types>"""
_RELATIONS = """\
<?xml version="1.0" encoding="UTF-8"?>
<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">
<Relationship Id="rId1" Type=\
"http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" \
Target="word/document.xml"/></Relationships>"""
_STYLES = """\
<?xml version="1.0" encoding="UTF-8"?>
<w:styles xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main">
<w:style w:type="paragraph" w:styleId="u1"><w:name w:val="heading 1"/></w:style>
<w:style w:type="paragraph" w:styleId="u2"><w:name w:val="heading 2"/></w:style>
</w:styles>"""
_DOCUMENT = """\
<?xml version="1.0" encoding="UTF-8"?>
<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main">
<w:body>{body}</w:body></w:document>"""


def pdf_of(
    pages: Sequence[Sequence[PdfLine]], *, picture_pages: Sequence[int] = (), title: str = ""
) -> bytes:
    """Return a PDF. A line without text is a blank one. Pages whose place, from 0, is in
    `picture_pages` show a filled rectangle instead of text, as a scan shows a picture.
    """
    font = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"
    about = b"<< /Title (%s) >>" % title.encode("latin-1")
    objects: list[bytes] = [b"", b"", font, about]
    kids: list[int] = []
    for place, lines in enumerate(pages):
        drawn = [] if place not in picture_pages else ["0.2 g 50 50 400 700 re f"]
        height = 780.0
        for text, size in lines:
            height -= 1.3 * size
            if text:
                quoted = text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
                drawn.append(f"BT /F1 {size} Tf 60 {height:.1f} Td ({quoted}) Tj ET")
        content = "\n".join(drawn).encode("latin-1")
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content))
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents %d 0 R "
            b"/Resources << /Font << /F1 3 0 R >> >> >>" % len(objects)
        )
        kids.append(len(objects))
    objects[0] = b"<< /Type /Catalog /Pages 2 0 R >>"
    references = b" ".join(b"%d 0 R" % kid for kid in kids)
    objects[1] = b"<< /Type /Pages /Kids [%s] /Count %d >>" % (references, len(kids))
    data = b"%PDF-1.4\n"
    places: list[int] = []
    for number, value in enumerate(objects, start=1):
        places.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, value)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    size = len(objects) + 1
    return data + (
        b"xref\n0 %d\n0000000000 65535 f \n%strailer\n<< /Size %d /Root 1 0 R /Info 4 0 R >>\n"
        b"startxref\n%d\n%%%%EOF\n" % (size, table, size, len(data))
    )


def docx_of(*parts: Sequence[tuple[str, str]] | DocxTable) -> bytes:
    """Return a DOCX file of parts in their order. A part is paragraphs, each a style (`heading 1`,
    `heading 2` or empty) and a text, or a table.
    """
    body = "".join(
        _table(part.rows) if isinstance(part, DocxTable) else "".join(map(_paragraph, part))
        for part in parts
    )
    return docx_with_document(_DOCUMENT.format(body=body).encode())


def docx_with_document(document: bytes) -> bytes:
    """Return a DOCX file with this main part."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in (
            ("[Content_Types].xml", _CONTENT_TYPES),
            ("_rels/.rels", _RELATIONS),
            ("word/styles.xml", _STYLES),
            ("word/document.xml", document),
        ):
            # Without a date, the same parts are the same bytes.
            archive.writestr(zipfile.ZipInfo(name), part, zipfile.ZIP_DEFLATED)
    return file.getvalue()


def _table(rows: Sequence[Sequence[str]]) -> str:
    header = "<w:trPr><w:tblHeader/></w:trPr>"
    lines = [
        header * (place == 0) + "".join(f"<w:tc>{_paragraph(('', cell))}</w:tc>" for cell in row)
        for place, row in enumerate(rows)
    ]
    return "<w:tbl>" + "".join(f"<w:tr>{line}</w:tr>" for line in lines) + "</w:tbl>"


def _paragraph(paragraph: tuple[str, str]) -> str:
    style, text = paragraph
    styles = {"heading 1": "u1", "heading 2": "u2"}
    properties = f'<w:pPr><w:pStyle w:val="{styles[style]}"/></w:pPr>' if style else ""
    return f"<w:p>{properties}<w:r><w:t>{escape(text)}</w:t></w:r></w:p>"
