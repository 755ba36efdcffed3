"""Test data: files to import, and the import of one."""

import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from services.dataset.imports.import_curation import ImportCuration
from services.dataset.imports.importing import ImportReport, ImportRequest, import_file
from services.dataset.imports.reading import ImportedLine, read_file
from services.dataset.ledger.golden_set import GoldenSet
from services.dataset.snapshot.writer import ObjectWriter
from shared.config.model_file import ModelFile
from shared.events import Message
from shared.redaction.redactor import Redactor
from tests.support.scored_feedback import model_file, words

FILE = model_file()


def said(role: str, content: Any, **fields: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **fields}


def chat(seed: str, **fields: Any) -> dict[str, Any]:
    """A chat record of one turn, unlike that of any other seed."""
    question, answer = words(f"question {seed}"), words(f"answer {seed}")
    return {"messages": [said("user", question), said("assistant", answer)], **fields}


def write_jsonl(path: Path, records: Iterable[Any], *, compressed: bool = False) -> Path:
    """Write records as JSON Lines; a record that is bytes becomes a line as it is."""
    lines = (each if isinstance(each, bytes) else json.dumps(each).encode() for each in records)
    data = b"".join(line + b"\n" for line in lines)
    path.write_bytes(gzip.compress(data) if compressed else data)
    return path


def read_all(path: Path, **options: Any) -> list[ImportedLine]:
    return list(read_file(path, **options))


def errors_of(lines: Iterable[ImportedLine]) -> dict[int, str]:
    """The errors by line."""
    return {line.line: str(line.error) for line in lines if line.error is not None}


def curation(file: ModelFile = FILE, golden: Iterable[tuple[Message, ...]] = ()) -> ImportCuration:
    return ImportCuration(file, GoldenSet(golden), Redactor(file.redaction))


def import_into(
    store: ObjectWriter,
    path: Path,
    file: ModelFile = FILE,
    *,
    golden: Iterable[tuple[Message, ...]] = (),
    columns: Mapping[str, str] | None = None,
    errors_file: Path | None = None,
) -> ImportReport:
    """Import a file as the process does."""
    request = ImportRequest(path, columns=columns or {}, errors_file=errors_file)
    return import_file(request, file, curation(file, golden), store, lambda _: None)
