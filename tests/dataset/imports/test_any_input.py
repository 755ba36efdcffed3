"""Readers and parsers on arbitrary input: an example, an error of a line, or a refusal."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.dataset.imports.formats import examples_of
from services.dataset.imports.records import InvalidLine
from shared.errors import CommandRefused
from shared.events import RecordFormat
from tests.support.imported_files import curation, read_all

FIELDS = [
    "messages",
    "conversations",
    "chosen",
    "rejected",
    "prompt",
    "completion",
    "label",
    "system",
    "instruction",
    "input",
    "output",
    "preferred_output",
    "non_preferred_output",
    "role",
    "content",
    "from",
    "value",
    "weight",
    "tools",
    "type",
    "text",
]
WORDS = st.sampled_from(["user", "assistant", "system", "human", "gpt", "text", "Why?", "", " "])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats(allow_nan=False) | WORDS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4)
    ),
    max_leaves=25,
)
RECORDS = st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=5)


@given(record=RECORDS, record_format=st.sampled_from([None, *get_args(RecordFormat)]))
def test_any_record_has_examples_or_an_error(
    record: dict[str, Any], record_format: RecordFormat | None
) -> None:
    try:
        examples = list(examples_of(record, record_format))
    except InvalidLine:
        return
    assert examples
    for example in examples:
        assert example.answer.strip()
        assert any(message.content.strip() for message in example.messages)
    assert len(curation().curate(examples)) == len(examples)


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.json"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.binary(max_size=60)
    | st.lists(RECORDS, max_size=4).map(lambda rows: json.dumps(rows, indent=1).encode())
    | st.tuples(st.sampled_from([b"[", b"{", b"PAR1", b"\x1f\x8b"]), st.binary(max_size=60)).map(
        b"".join
    )
)
def test_any_file_is_read_or_refused(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    try:
        lines = read_all(path)
    except CommandRefused:
        return
    assert [line.line for line in lines] == sorted(line.line for line in lines)
    assert all(bool(line.examples) != (line.error is not None) for line in lines)
