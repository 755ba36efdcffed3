"""Imports into a real folder: the snapshot, its identity, refusals, memory, and a kill."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from ratchet.dataset.verifying import verify_batches
from services.dataset.imports.dataset_draft import DATA_FILE_BYTES
from services.dataset.imports.import_curation import CuratedExample, ImportCuration
from services.dataset.imports.importing import FIRST_ERRORS, ImportRequest, import_file
from services.dataset.imports.records import ImportedExample
from services.dataset.ledger.golden_set import GoldenSet
from services.dataset.snapshot.report import DatasetReport
from services.trainer.data.training_set import read_batches, select_examples
from shared.config.redaction_policy import RedactionPolicy
from shared.errors import CommandRefused, StorageUnavailable
from shared.identity import digest_of
from shared.redaction.redactor import Redactor
from shared.storage.object_store import FsspecStore, MemoryStore, get_verified
from shared.storage.snapshots import dataset_identity, read_examples, read_manifest
from tests.support.imported_files import chat, import_into, write_jsonl
from tests.support.scored_feedback import model_file, words

# The words of the examples are random; some look like telephone numbers.
FILE = model_file(smallest_batch=3).model_copy(update={"redaction": RedactionPolicy(kinds=())})
PAIRS = [
    {"prompt": words(f"pair {n}"), "chosen": words(f"good {n}"), "rejected": words(f"bad {n}")}
    for n in range(20)
]


def imported_file(folder: Path) -> Path:
    """A file with examples of every kind, a duplicate, and two lines with errors."""
    chats = [chat(str(n)) for n in range(60)]
    disliked = {"prompt": words("q"), "completion": words("a"), "label": False}
    lines = [*chats, chats[0], *PAIRS, disliked, b"{", {"messages": 5}]
    return write_jsonl(folder / "examples.jsonl", lines)


def test_an_import_is_a_whole_snapshot(tmp_path: Path) -> None:
    store = FsspecStore(str(tmp_path / "store"))
    report = import_into(store, imported_file(tmp_path), FILE)
    assert report.refused is None
    assert report.manifest is not None
    assert (report.lines, report.errors, report.dropped) == (84, 2, {"duplicate": 1})
    manifest = read_manifest(store, report.manifest)
    examples = {file.kind: read_examples(store, manifest, file.kind) for file in manifest.files}
    assert report.examples == manifest.counts
    assert {kind: len(rows) for kind, rows in examples.items()} == manifest.counts.model_dump()
    members = manifest.counts.training + manifest.counts.negative + manifest.counts.held_out
    assert members == len(manifest.feedback_ids) == 81
    assert manifest.counts.preference == sum(
        example.feedback_type == "correction" for example in examples["training"]
    )
    assert (manifest.lane, manifest.previous, manifest.offsets) == ("master", None, ())
    assert manifest.imported is not None
    assert manifest.imported.digest == digest_of((tmp_path / "examples.jsonl").read_bytes())
    assert verify_batches(store, report.manifest, whole_chain=True).faults == ()


def test_the_reports_of_an_import_name_its_file(tmp_path: Path) -> None:
    store = MemoryStore()
    report = import_into(store, imported_file(tmp_path), FILE)
    assert report.manifest is not None
    manifest = read_manifest(store, report.manifest)
    assert manifest.report is not None
    assert manifest.page is not None
    numbers = DatasetReport.model_validate_json(get_verified(store, manifest.report))
    assert numbers.batch_id == report.dataset
    assert numbers.imported == manifest.imported
    page = get_verified(store, manifest.page).decode()
    assert "# support: imported dataset" in page
    assert "84 lines read, 2 with errors" in page
    assert "Source offsets" not in page


def test_the_same_file_is_the_same_dataset(tmp_path: Path) -> None:
    store = MemoryStore()
    path = imported_file(tmp_path)
    first = import_into(store, path, FILE)
    objects = dict(store.objects)
    assert import_into(store, path.rename(tmp_path / "renamed.jsonl"), FILE) == first
    assert store.objects == objects
    other = import_into(store, path.with_name("renamed.jsonl"), model_file(smallest_batch=4))
    assert other.dataset != first.dataset


def test_an_altered_manifest_has_another_identity(tmp_path: Path) -> None:
    store = MemoryStore()
    report = import_into(store, imported_file(tmp_path), FILE)
    assert report.manifest is not None
    manifest = read_manifest(store, report.manifest)
    assert dataset_identity(manifest) == manifest.batch_id
    altered = manifest.model_copy(update={"mean_reward": 0.0})
    artefact = store.put("altered", altered.encode())
    [fault] = verify_batches(store, artefact, whole_chain=False).faults
    assert "its ID is" in fault.what


def test_a_run_trains_and_judges_on_an_import(tmp_path: Path) -> None:
    store = MemoryStore()
    report = import_into(store, imported_file(tmp_path), FILE)
    assert report.manifest is not None
    selected = select_examples(
        read_batches(store, report.manifest),
        quarantined=(),
        golden_prompts=(),
        training_set=500,
        replay=500,
        replay_window=10_000,
        held_out_newest=500,
    )
    assert len(selected.new) == report.examples.training
    assert len(selected.held_out) == report.examples.held_out > 0
    assert len(selected.pairs) == report.examples.preference > 0
    assert len(selected.negatives) == report.examples.negative


def test_all_errors_are_in_the_side_file(tmp_path: Path) -> None:
    path = write_jsonl(
        tmp_path / "a.jsonl", [*(chat(str(n)) for n in range(9)), *([b"{"] * (FIRST_ERRORS + 5))]
    )
    errors = tmp_path / "errors.jsonl"
    report = import_into(MemoryStore(), path, FILE, errors_file=errors)
    rows = [json.loads(line) for line in errors.read_text().splitlines()]
    assert [row["line"] for row in rows] == list(range(10, 10 + FIRST_ERRORS + 5))
    assert [line.line for line in report.first_errors] == list(range(10, 10 + FIRST_ERRORS))
    write_jsonl(path, [chat(str(n)) for n in range(9)])
    assert import_into(MemoryStore(), path, FILE, errors_file=errors).errors_file is None
    assert not errors.exists()
    with pytest.raises(StorageUnavailable, match="--errors names another file"):
        import_into(MemoryStore(), path, FILE, errors_file=tmp_path / "none" / "errors")


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([], "is empty"),
        ([b"{", b"{"], "no line of .* can be used"),
        ([chat("a"), chat("b")], "2 training examples are left of 2 lines"),
        ([chat("a")] * 50, "1 training examples are left of 50 lines .*49 duplicate.*needs 3"),
    ],
)
def test_small_and_repetitive_files_are_refused(
    tmp_path: Path, lines: list[object], reason: str
) -> None:
    store = MemoryStore()
    file = model_file(smallest_batch=3, held_out_share=0.0)
    report = import_into(store, write_jsonl(tmp_path / "a.jsonl", lines), file)
    assert report.refused is not None
    assert re.search(reason, report.refused)
    assert store.objects == {}


def test_large_datasets_have_several_data_files(tmp_path: Path) -> None:
    records = [
        {"prompt": words(str(n), 40), "completion": words(f"long {n}", 30) + "\n" + "-" * 900_000}
        for n in range(40)
    ]
    store = FsspecStore(str(tmp_path / "store"))
    report = import_into(
        store, write_jsonl(tmp_path / "a.jsonl", records), model_file(held_out_share=0.0)
    )
    assert report.manifest is not None
    manifest = read_manifest(store, report.manifest)
    sizes = [
        len(get_verified(store, file.artefact))
        for file in manifest.files
        if file.kind == "training"
    ]
    assert len(sizes) == 3
    assert max(sizes) < DATA_FILE_BYTES + (1 << 20)
    assert verify_batches(store, report.manifest, whole_chain=False).faults == ()


class _AppendingCuration(ImportCuration):
    """Appends to the file while it is read."""

    def __init__(self, path: Path) -> None:
        super().__init__(FILE, GoldenSet(), Redactor(FILE.redaction))
        self._path = path

    def curate(self, examples: Iterable[ImportedExample]) -> list[CuratedExample]:
        with self._path.open("ab") as file:
            file.write(b"\n")
        return super().curate(examples)


def test_a_file_that_changes_meanwhile_is_refused(tmp_path: Path) -> None:
    path, store = imported_file(tmp_path), MemoryStore()
    with pytest.raises(CommandRefused, match="was changed while it was read"):
        import_file(ImportRequest(path), FILE, _AppendingCuration(path), store, lambda _: None)
    assert store.objects == {}
