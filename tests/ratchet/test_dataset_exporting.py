"""Exported data equals the stored data, in formats that other tools read."""

import json
import sys
from io import BytesIO
from pathlib import Path

import pytest
from pyarrow import parquet

from ratchet.dataset.exporting import Format, export
from services.dataset.snapshot.content import snapshot_content
from services.dataset.snapshot.writer import write_snapshot
from shared.errors import CommandRefused, DigestMismatch, Misconfigured
from shared.storage.object_store import MemoryStore
from shared.storage.snapshots import (
    EXAMPLE_KINDS,
    BatchManifest,
    Example,
    ExampleKind,
    read_examples,
    read_manifest,
)
from tests.support.batches import FILE, batch_plan, member, write_chain


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def manifest(store: MemoryStore) -> BatchManifest:
    return read_manifest(store, write_chain(store, 1)[0])


def test_jsonl_equals_the_stored_lines(
    store: MemoryStore, manifest: BatchManifest, tmp_path: Path
) -> None:
    written = export(
        store, manifest, tmp_path / "new" / "folder", EXAMPLE_KINDS, "jsonl", force=False
    )
    assert [(file.kind, file.examples, file.path) for file in written] == [
        (kind, count, tmp_path / "new" / "folder" / f"{kind}.jsonl")
        for kind, count in (("training", 3), ("preference", 1), ("negative", 1), ("held_out", 1))
    ]
    for file in manifest.files:
        assert (tmp_path / "new" / "folder" / f"{file.kind}.jsonl").read_bytes() == store.objects[
            file.artefact.uri
        ]


def test_parquet_round_trip(store: MemoryStore, manifest: BatchManifest, tmp_path: Path) -> None:
    export(store, manifest, tmp_path, EXAMPLE_KINDS, "parquet", force=False)
    for kind in EXAMPLE_KINDS:
        rows = parquet.read_table(BytesIO((tmp_path / f"{kind}.parquet").read_bytes())).to_pylist()
        assert [Example.model_validate(row) for row in rows] == read_examples(store, manifest, kind)


def test_chat_conversations_end_with_the_answer(
    store: MemoryStore, manifest: BatchManifest, tmp_path: Path
) -> None:
    export(store, manifest, tmp_path, EXAMPLE_KINDS, "chat", force=False)

    def lines(kind: ExampleKind) -> list[dict[str, object]]:
        return [
            json.loads(line) for line in (tmp_path / f"{kind}.chat.jsonl").read_bytes().splitlines()
        ]

    for kind in ("training", "held_out"):
        for line, example in zip(lines(kind), read_examples(store, manifest, kind), strict=True):
            messages = [message.model_dump() for message in example.messages]
            assert line == {
                "messages": [*messages, {"role": "assistant", "content": example.answer}]
            }
    (preference,), (chosen,) = lines("preference"), read_examples(store, manifest, "preference")
    assert preference == {
        "prompt": [message.model_dump() for message in chosen.messages],
        "chosen": [{"role": "assistant", "content": chosen.answer}],
        "rejected": [{"role": "assistant", "content": chosen.rejected}],
    }
    (negative,) = lines("negative")
    assert negative["label"] is False
    assert "messages" not in negative, "a disliked answer must not look like a training example"


@pytest.mark.parametrize("form", ["jsonl", "chat", "parquet"])
def test_kind_without_examples_has_no_file(
    store: MemoryStore, tmp_path: Path, form: Format
) -> None:
    alone = read_manifest(
        store, write_snapshot(store, snapshot_content(batch_plan(member("a", 0)), FILE, 0))
    )
    assert [
        (file.kind, file.examples, bool(file.path))
        for file in export(store, alone, tmp_path, EXAMPLE_KINDS, form, force=False)
    ] == [
        ("training", 1, True),
        ("preference", 0, False),
        ("negative", 0, False),
        ("held_out", 0, False),
    ]
    assert len(list(tmp_path.iterdir())) == 1


def test_existing_files_are_overwritten_only_with_force(
    store: MemoryStore, manifest: BatchManifest, tmp_path: Path
) -> None:
    (tmp_path / "negative.jsonl").write_text("mine")
    with pytest.raises(CommandRefused, match=r"negative\.jsonl would be overwritten"):
        export(store, manifest, tmp_path, EXAMPLE_KINDS, "jsonl", force=False)
    assert [path.name for path in tmp_path.iterdir()] == ["negative.jsonl"]
    export(store, manifest, tmp_path, ("negative",), "jsonl", force=True)
    assert (tmp_path / "negative.jsonl").read_text() != "mine"


def test_altered_batch_is_not_exported(
    store: MemoryStore, manifest: BatchManifest, tmp_path: Path
) -> None:
    store.objects[manifest.files[-1].artefact.uri] += b" "
    with pytest.raises(DigestMismatch):
        export(store, manifest, tmp_path, EXAMPLE_KINDS, "jsonl", force=False)
    assert list(tmp_path.iterdir()) == []


def test_missing_pyarrow_names_the_extra(
    store: MemoryStore, manifest: BatchManifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(Misconfigured, match=r"pip install '\.\[export\]'"):
        export(store, manifest, tmp_path, EXAMPLE_KINDS, "parquet", force=False)
    assert list(tmp_path.iterdir()) == []
