"""Reading of one file: its type by the name, its encoding by the bytes."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from services.dataset.sources.document import (
    MAX_TEXT_CHARACTERS,
    SourceDocument,
    UnreadableDocument,
)
from services.dataset.sources.docx_files import read_docx
from services.dataset.sources.html_files import read_html
from services.dataset.sources.markdown_files import read_markdown
from services.dataset.sources.pdf_files import read_pdf
from services.dataset.sources.plain_text import read_plain_text
from services.dataset.sources.transcripts import is_transcript, read_captions, read_transcript

MAX_FILE_BYTES = 64 << 20

_CHARSET = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE)
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_HEAD_BYTES = 4096


def _read_text(text: str) -> SourceDocument:
    return read_transcript(text) if is_transcript(text) else read_plain_text(text)


_TEXT_READERS: Mapping[str, Callable[[str], SourceDocument]] = {
    ".md": read_markdown,
    ".markdown": read_markdown,
    ".html": read_html,
    ".htm": read_html,
    ".xhtml": read_html,
    ".txt": _read_text,
    ".text": _read_text,
    ".rst": _read_text,
    ".vtt": read_captions,
    ".srt": read_captions,
}
_BINARY_READERS: Mapping[str, Callable[[bytes], SourceDocument]] = {
    ".pdf": read_pdf,
    ".docx": read_docx,
}
SUFFIXES = frozenset({*_TEXT_READERS, *_BINARY_READERS})


def read_document(path: Path) -> SourceDocument:
    """Read a file of one of `SUFFIXES`. The title of a file without one is its name.

    Raises UnreadableDocument with the reason, also for a file without text.
    """
    suffix = path.suffix.lower()
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise UnreadableDocument(
                f"has {size >> 20:,} MiB; at most {MAX_FILE_BYTES >> 20} MiB are read; divide it"
            )
        data = path.read_bytes()
    except OSError as error:
        raise UnreadableDocument(f"cannot be read: {error.strerror or error}") from error
    if not data:
        raise UnreadableDocument("is empty")
    if binary := _BINARY_READERS.get(suffix):
        document = binary(data)
    else:
        document = _TEXT_READERS[suffix](
            _decoded(data, is_html=suffix in (".html", ".htm", ".xhtml"))
        )
    if not document.title:
        document = document.model_copy(update={"title": path.stem})
    if not document.blocks and not document.gaps:
        raise UnreadableDocument("has no text")
    return document


def _decoded(data: bytes, *, is_html: bool) -> str:
    encoding = "utf-8-sig"
    if data.startswith(_UTF16):
        encoding = "utf-16"
    elif is_html and (charset := _CHARSET.search(data[:_HEAD_BYTES])):
        encoding = charset[1].decode("ascii")
        encoding = "utf-8-sig" if encoding.lower() == "utf-8" else encoding
    try:
        text = data.decode(encoding)
    except (UnicodeDecodeError, LookupError) as error:
        raise UnreadableDocument(
            f"is not text in {encoding.removesuffix('-sig')}; "
            "convert it with: iconv -f LATIN1 -t UTF-8"
        ) from error
    if "\0" in text[:MAX_TEXT_CHARACTERS]:
        raise UnreadableDocument("is a binary file, not text")
    if len(text) > MAX_TEXT_CHARACTERS:
        raise UnreadableDocument(
            f"has more than {MAX_TEXT_CHARACTERS:,} characters of text; divide it"
        )
    return text
