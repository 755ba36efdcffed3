"""Reading of an imported file: its type is recognised, then every record yields its examples."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from services.dataset.imports.byte_source import is_parquet, open_bytes, refuse_utf16
from services.dataset.imports.formats import examples_of, renamed
from services.dataset.imports.json_records import read_json_array, read_json_lines
from services.dataset.imports.records import ImportedExample, InvalidLine, Records
from services.dataset.imports.table_records import read_csv, read_parquet
from shared.errors import CommandRefused
from shared.events import RecordFormat

_TABLES = (".csv", ".tsv")
_BOM = b"\xef\xbb\xbf"
_PEEKED_BYTES = 1024


@dataclass(frozen=True, slots=True)
class ImportedLine:
    """A record's examples, or the error for which it has none."""

    line: int
    examples: tuple[ImportedExample, ...]
    error: InvalidLine | None = None


def read_file(
    path: Path,
    record_format: RecordFormat | None = None,
    columns: Mapping[str, str] | None = None,
) -> Iterator[ImportedLine]:
    """Yield every record of a file of JSON Lines, a JSON array, CSV or Parquet; text files may be
    compressed by gzip.

    `record_format` overrides the recognition by keys; `columns` maps names of a format's fields to
    names in the file. Raises CommandRefused for a file that cannot be read to its end,
    Misconfigured if a library is missing.
    """
    for record in _records(path):
        if isinstance(record.value, InvalidLine):
            yield ImportedLine(record.line, (), record.value)
            continue
        try:
            examples = tuple(examples_of(renamed(record.value, columns or {}), record_format))
        except InvalidLine as error:
            yield ImportedLine(record.line, (), error)
        else:
            yield ImportedLine(record.line, examples)


def _records(path: Path) -> Records:
    if is_parquet(path):
        yield from read_parquet(path)
        return
    with open_bytes(path) as stream:
        start = stream.peek(_PEEKED_BYTES)[:_PEEKED_BYTES]
        refuse_utf16(path, start)
        first = start.removeprefix(_BOM).lstrip()[:1]
        if {suffix.lower() for suffix in path.suffixes[-2:]} & set(_TABLES):
            yield from read_csv(stream)
        elif first == b"[":
            yield from read_json_array(stream)
        elif first in (b"{", b""):
            yield from read_json_lines(stream)
        else:
            raise CommandRefused(
                f"{path} is neither JSON Lines, a JSON array nor Parquet; a table of CSV has to be "
                "named .csv or .tsv"
            )
