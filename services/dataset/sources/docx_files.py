"""DOCX: converted to HTML by mammoth, which knows headings by the names of their styles."""

import io
import zipfile
import zlib
from xml.parsers.expat import ExpatError

import mammoth

from services.dataset.sources.document import SourceDocument, UnreadableDocument
from services.dataset.sources.html_files import read_html

_MAX_PARTS = 10_000
_MAX_XML_BYTES = 64 << 20
"""Limit of all XML of a file together, unpacked."""


def read_docx(data: bytes) -> SourceDocument:
    """Read a document. Pictures are left out. Places are numbers of paragraphs and tables.

    Raises UnreadableDocument for a damaged file, and if it unpacks to more than the limit.
    """
    _check_size(data)
    try:
        converted = mammoth.convert_to_html(
            io.BytesIO(data), convert_image=mammoth.images.img_element(lambda image: {})
        )
    except (KeyError, ValueError, AttributeError, OSError, ExpatError, zlib.error) as error:
        raise UnreadableDocument(
            f"not a DOCX file, or a damaged one ({type(error).__name__}); save it again"
        ) from error
    return read_html(converted.value, unit="paragraph")


def _check_size(data: bytes) -> None:
    """Refuse an archive by its list of contents; no part is unpacked beyond its size there."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise UnreadableDocument(
            "not a DOCX file, or damaged or encrypted; save it again without a password"
        ) from error
    xml = sum(part.file_size for part in parts if part.filename.endswith((".xml", ".rels")))
    if len(parts) > _MAX_PARTS or xml > _MAX_XML_BYTES:
        raise UnreadableDocument(
            f"unpacks to {len(parts):,} parts and {xml >> 20:,} MiB of XML; at most "
            f"{_MAX_PARTS:,} and {_MAX_XML_BYTES >> 20} MiB are read; divide it"
        )
