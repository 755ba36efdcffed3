"""Types of files: good lines are read, bad ones are named, and memory stays bounded."""

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from services.dataset.imports.records import MAX_RECORD_BYTES
from shared.errors import CommandRefused
from tests.support.imported_files import chat, errors_of, read_all, said, write_jsonl
from tests.support.scored_feedback import words

TABLE = [{"prompt": f"What is {n}, exactly?", "completion": f'"{n}",\nno more'} for n in range(5)]


def test_json_lines_are_numbered_with_blank_lines(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [chat("a"), b"", b"  \r", chat("b")])
    assert [(line.line, len(line.examples)) for line in read_all(path)] == [(1, 1), (4, 1)]


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf", b"\r\n", b" "])
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_line_ends_and_byte_order_marks_are_accepted(
    tmp_path: Path, start: bytes, end: bytes
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(start + json.dumps(chat("a")).encode() + end)
    [line] = read_all(path)
    assert line.error is None
    assert line.examples[0].answer == words("answer a")


def test_a_compressed_file_is_read_like_a_plain_one(tmp_path: Path) -> None:
    plain = write_jsonl(tmp_path / "a.jsonl", [chat("a"), chat("b")])
    packed = write_jsonl(tmp_path / "b", [chat("a"), chat("b")], compressed=True)
    assert read_all(packed) == read_all(plain)


def test_each_bad_line_of_json_is_named(tmp_path: Path) -> None:
    path = write_jsonl(
        tmp_path / "a.jsonl",
        [
            chat("a"),
            b"{",
            b'{"messages": [], "messages": []}',
            b'{"prompt": NaN}',
            b"[1]",
            b'{"prompt": "\xff"}',
            b"[" * 100_000,
            b'{"prompt": ' + b"9" * 5000 + b"}",
            b'{"prompt": "\\ud800", "completion": "b"}',
            b"x" * (MAX_RECORD_BYTES + 1),
            chat("b"),
        ],
    )
    errors = errors_of(read_all(path))
    assert list(errors) == list(range(2, 11))
    assert "not JSON" in errors[2]
    assert "the key 'messages' occurs twice" in errors[3]
    assert "NaN is not JSON" in errors[4]
    assert "expected an object, found a list" in errors[5]
    assert "not UTF-8 at byte 13" in errors[6]
    assert "nested too deeply" in errors[7]
    assert "too many digits" in errors[8]
    assert "prompt: character 1 is half of a surrogate pair" in errors[9]
    assert "longer than 1,048,576 bytes" in errors[10]


def test_a_json_array_is_read_element_by_element(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    bad = {"messages": 1}
    text = json.dumps([chat("a"), bad, 7, chat("b" * 5)], indent=1)
    path.write_text(text + "\n", encoding="utf-8")
    lines = read_all(path)
    assert [len(line.examples) for line in lines] == [1, 0, 0, 1]
    rows = text.splitlines()
    assert [line.line for line in lines[1:3]] == [
        rows.index('  "messages": 1') - 0,
        rows.index(" 7,") + 1,
    ]
    assert "found a number" in errors_of(lines)[lines[2].line]


def test_a_large_array_is_read_across_its_chunks(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([chat(str(n)) for n in range(2000)]), encoding="utf-8")
    lines = read_all(path)
    assert [line.examples[0].answer for line in lines] == [
        words(f"answer {n}") for n in range(2000)
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[", "not JSON"),
        ("[{}", "the array ends"),
        ("[{} {}]", "expected ',', found '{'"),
        ("[{}]\n\n5", "line 3: text after the end of the array"),
        ("[{},]", "not JSON"),
        ('[{"a": "' + "x" * (MAX_RECORD_BYTES + (1 << 17)) + '"}]', "longer than"),
    ],
)
def test_a_damaged_array_is_refused_with_its_line(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CommandRefused) as refused:
        read_all(path)
    assert reason in str(refused.value)
    assert "JSON Lines" in str(refused.value)


def test_an_empty_array_has_no_records(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(" [ ] \n", encoding="utf-8")
    assert read_all(path) == []


@pytest.mark.parametrize(("suffix", "delimiter"), [("csv", ","), ("csv", ";"), ("tsv", "\t")])
def test_csv_is_read_with_its_separator(tmp_path: Path, suffix: str, delimiter: str) -> None:
    path = tmp_path / f"a.{suffix}"
    cells = [f'"{row["prompt"]}"{delimiter}"{_quoted(row["completion"])}"' for row in TABLE]
    path.write_text("\ufeff" + "\r\n".join([f"prompt{delimiter}completion", *cells]))
    lines = read_all(path)
    assert [line.line for line in lines] == [2, 4, 6, 8, 10]
    assert [line.examples[0].answer for line in lines] == [row["completion"] for row in TABLE]


def test_columns_with_other_names_are_mapped(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("Frage,Antwort\nWie?,So.\n", encoding="utf-8")
    [line] = read_all(path, columns={"prompt": "Frage", "completion": "Antwort"})
    assert line.examples[0].answer == "So."
    [wrong] = read_all(path, columns={"prompt": "Question"})
    assert str(wrong.error) == "has no field 'Question'; it has 'Frage', 'Antwort'"


def test_each_bad_row_of_csv_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    long = b"y" * (MAX_RECORD_BYTES - 10)
    path.write_bytes(
        b"prompt,completion\n"
        b"Why?,So.\n"
        b"one cell\n"
        b"bad \xff,x\n"
        b'"a"b,c\n'
        b"When?,Now.\n"
        b'"' + long + b"\n" + long + b"\n"
        b"Who?,\n"
        b"Where?,Here.\n"
        b'"open,until the end\n'
    )
    lines = read_all(path)
    assert [line.line for line in lines if line.error is None] == [2, 6, 10]
    errors = errors_of(lines)
    assert "has 1 cells, and the header has 2 columns" in errors[3]
    assert "not UTF-8 at byte 5" in errors[4]
    assert "is a quotation mark open" in errors[5]
    assert "a record is longer than" in errors[7]
    assert errors[9] == "completion: is blank; fill it in, or remove the line"
    assert "not CSV" in errors[11]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no header"),
        ("instruction,output\rHi,Hello\r", "not CSV"),
        ("a,a\n1,2\n", "two columns have the same name"),
        ("\udcff,b\n", "not UTF-8"),
    ],
)
def test_csv_without_a_usable_header_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(CommandRefused, match=reason):
        read_all(path)


def test_parquet_is_read_with_texts_and_messages(tmp_path: Path) -> None:
    table = tmp_path / "table.parquet"
    rows = [*TABLE, {"prompt": "x", "completion": ""}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), table)
    lines = read_all(table)
    assert [line.examples[0].answer for line in lines[:5]] == [row["completion"] for row in TABLE]
    assert errors_of(lines) == {6: "completion: is blank; fill it in, or remove the line"}
    chats = tmp_path / "chats"
    parquet.write_table(pyarrow.Table.from_pylist([chat("a"), chat("b")]), chats)
    assert [line.examples for line in read_all(chats)] == [
        line.examples for line in read_all(write_jsonl(tmp_path / "a", [chat("a"), chat("b")]))
    ]


def test_a_cut_parquet_file_is_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(TABLE), file)
    path = tmp_path / "a.parquet"
    path.write_bytes(file.getvalue()[:-20])
    with pytest.raises(CommandRefused, match="not a readable Parquet file"):
        read_all(path)


def test_a_cut_gzip_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    data = b"".join(json.dumps(chat(str(n))).encode() + b"\n" for n in range(500))
    path.write_bytes(gzip.compress(data)[:-100])
    with pytest.raises(CommandRefused, match="damaged gzip file"):
        read_all(path)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ('{"a": 1}'.encode("utf-16"), "iconv -f UTF-16 -t UTF-8"),
        (b"prompt,completion\na,b\n", "named .csv or .tsv"),
        (b"PK\x03\x04 a workbook", "neither JSON Lines"),
    ],
)
def test_other_files_are_refused_with_advice(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "a.data"
    path.write_bytes(data)
    with pytest.raises(CommandRefused, match=reason):
        read_all(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CommandRefused, match="cannot be read: No such file"):
        read_all(tmp_path / "none")


def test_formats_may_be_mixed_or_forced(tmp_path: Path) -> None:
    records: list[Any] = [
        chat("a"),
        {"prompt": "Why?", "completion": "So.", "messages": [said("user", "x")]},
    ]
    path = write_jsonl(tmp_path / "a.jsonl", records)
    assert list(errors_of(read_all(path))) == [2]
    assert list(errors_of(read_all(path, record_format="completion"))) == [1]


def _quoted(text: str) -> str:
    return text.replace('"', '""')
