"""Lines of a UTF-8 file, each read with bounded memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from services.dataset.imports.records import MAX_RECORD_BYTES, InvalidLine

_BOM = b"\xef\xbb\xbf"
_SKIPPED_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class TextLine:
    """A line without its line end, numbered from 1; an error for a line that is not text."""

    number: int
    text: str | InvalidLine


def read_lines(stream: BinaryIO) -> Iterator[TextLine]:
    """Yield every line. A byte order mark at the start is skipped. Both `\\n` and `\\r\\n` end
    a line.
    """
    number = 0
    while line := stream.readline(MAX_RECORD_BYTES + 2):
        number += 1
        if number == 1:
            line = line.removeprefix(_BOM)
        yield TextLine(number, _text(stream, line))


def _text(stream: BinaryIO, line: bytes) -> str | InvalidLine:
    if len(line.rstrip(b"\r\n")) > MAX_RECORD_BYTES:
        while not line.endswith(b"\n") and (line := stream.readline(_SKIPPED_BYTES)):
            pass
        return InvalidLine(f"longer than {MAX_RECORD_BYTES:,} bytes; split it")
    try:
        return line.removesuffix(b"\n").removesuffix(b"\r").decode()
    except UnicodeDecodeError as error:
        return InvalidLine(f"not UTF-8 at byte {error.start + 1}; write the file again as UTF-8")
