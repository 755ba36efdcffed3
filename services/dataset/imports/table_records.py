"""Records of tables: CSV with a header, and Parquet."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from services.dataset.imports.records import (
    MAX_RECORD_BYTES,
    InvalidLine,
    RecordFields,
    Records,
    SourceRecord,
)
from services.dataset.imports.text_lines import read_lines
from shared.errors import CommandRefused, Misconfigured
from shared.version import install_command

_DELIMITERS = ",;\t"
_PARQUET_ROWS = 64


def read_csv(stream: BinaryIO) -> Records:
    """Yield the rows of a table whose first row names its columns, separated by commas, semicolons
    or tabs. Raises CommandRefused without a readable header.
    """
    lines = _CsvLines(stream)
    header_line = next(lines, "")
    if lines.problem is not None:
        raise CommandRefused(f"line 1, which has to name the columns: {lines.problem}")
    csv.field_size_limit(MAX_RECORD_BYTES)
    delimiter = max(_DELIMITERS, key=header_line.count)
    header = _column_names(header_line, delimiter)
    if not any(header):
        raise CommandRefused("the file has no header: its first line has to name the columns")
    if len(set(header)) < len(header):
        raise CommandRefused(f"two columns have the same name: {', '.join(header)[:200]}")
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        line = lines.number + 1
        lines.start_record()
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield SourceRecord(
                line,
                InvalidLine(f"not CSV: {error}; is a quotation mark open or not doubled?"),
            )
            continue
        if lines.problem is not None:
            yield SourceRecord(line, lines.problem)
        elif row:
            yield SourceRecord(line, _cells(header, row))


def read_parquet(path: Path) -> Records:
    """Yield the rows, in order. Raises Misconfigured without pyarrow, CommandRefused if the file
    cannot be read.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise Misconfigured(
            f"Parquet needs pyarrow, which is not installed; run {install_command('export')}"
        ) from error
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield SourceRecord(number, _row(row))
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise CommandRefused(
            f"{path} is not a readable Parquet file, after row {number}: {error}"
        ) from error


class _CsvLines(Iterator[str]):
    """Lines for the `csv` module, with their line ends. `problem` is the first error of the lines
    of the current record.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._lines = read_lines(stream)
        self._bytes = 0
        self.number = 0
        self.problem: InvalidLine | None = None

    def start_record(self) -> None:
        self._bytes, self.problem = 0, None

    def __next__(self) -> str:
        line = next(self._lines)
        self.number = line.number
        if isinstance(line.text, InvalidLine):
            self.problem = self.problem or line.text
            return "\n"
        self._bytes += len(line.text)
        if self._bytes > MAX_RECORD_BYTES:
            self._bytes = 0
            # Ends the record: csv reports an error, and starts again at the next line.
            raise csv.Error(f"a record is longer than {MAX_RECORD_BYTES:,} bytes")
        return line.text + "\n"


def _column_names(line: str, delimiter: str) -> list[str]:
    try:
        names = next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error as error:
        raise CommandRefused(
            f"line 1, which has to name the columns, is not CSV: {error}; lines have to end with "
            "\\n or \\r\\n"
        ) from error
    return [name.strip() for name in names]


def _cells(header: list[str], row: list[str]) -> RecordFields | InvalidLine:
    if len(row) != len(header):
        return InvalidLine(
            f"has {len(row)} cells, and the header has {len(header)} columns; quote texts that "
            "contain the separator"
        )
    return dict(zip(header, row, strict=True))


def _row(row: dict[str, Any]) -> RecordFields | InvalidLine:
    size = sum(len(value) for value in row.values() if isinstance(value, str | bytes))
    if size > MAX_RECORD_BYTES:
        return InvalidLine(f"longer than {MAX_RECORD_BYTES:,} characters; split it")
    return row
