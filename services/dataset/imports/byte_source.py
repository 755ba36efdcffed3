"""Opening of an imported file: plain or gzip, seen from its bytes rather than from its name."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from shared.errors import CommandRefused

_GZIP = b"\x1f\x8b"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_PARQUET = b"PAR1"


@contextmanager
def open_bytes(path: Path) -> Iterator[io.BufferedReader]:
    """Open a file for reading; a gzip file is decompressed on the fly.

    Raises CommandRefused for a file that cannot be opened, and while a damaged gzip file is read.
    """
    try:
        with path.open("rb") as file:
            if file.peek(2)[:2] == _GZIP:
                yield io.BufferedReader(gzip.GzipFile(fileobj=cast(BinaryIO, file)))
            else:
                yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CommandRefused(
            f"{path} is a damaged gzip file ({error}); copy or download it again"
        ) from error
    except OSError as error:
        raise CommandRefused(f"{path} cannot be read: {error.strerror or error}") from error


def is_parquet(path: Path) -> bool:
    """True if the file starts like a Parquet file. Raises CommandRefused if it cannot be read."""
    with open_bytes(path) as file:
        return file.peek(4)[:4] == _PARQUET


def refuse_utf16(path: Path, start: bytes) -> None:
    """Raise CommandRefused if the first bytes of a file are those of UTF-16."""
    if start.startswith(_UTF16):
        raise CommandRefused(
            f"{path} is UTF-16; convert it with: iconv -f UTF-16 -t UTF-8 {path.name}"
        )
