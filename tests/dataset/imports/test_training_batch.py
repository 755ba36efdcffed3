"""The batch of an imported dataset: its identity, the batch before it, and refusals."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from ratchet.dataset.verifying import verify_batches
from services.dataset.batch_publisher import batch_ready_event
from services.dataset.imports.training_batch import (
    training_manifest,
    write_training_manifest,
)
from services.trainer.data.training_set import read_batches, select_examples
from shared.config.model_file import ModelFile
from shared.errors import CommandRefused, Misconfigured
from shared.storage.object_store import MemoryStore
from shared.storage.snapshots import BatchManifest, read_manifest
from tests.support.batches import write_chain
from tests.support.imported_files import chat, import_into, write_jsonl

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def file(*lanes: str, **sections: object) -> ModelFile:
    return ModelFile.model_validate(
        {
            "model": "support",
            "base": {"training": "base", "serving": "base.gguf"},
            "lanes": {lane: {} for lane in lanes or ("adaptive", "master")},
            **sections,
        }
    )


def imported(store: MemoryStore, folder: Path) -> BatchManifest:
    path = write_jsonl(folder / "a.jsonl", [chat(str(n)) for n in range(60)])
    report = import_into(store, path, file())
    assert report.manifest is not None
    return read_manifest(store, report.manifest)


def test_a_run_replays_feedback_and_is_judged_on_it(tmp_path: Path) -> None:
    store = MemoryStore()
    newest = write_chain(store, 3)[-1]
    feedback = [example for batch in read_batches(store, newest) for example in (*batch.training,)]
    manifest = training_manifest(imported(store, tmp_path), file(), newest, 3)
    artefact = write_training_manifest(store, manifest)
    selected = select_examples(
        read_batches(store, artefact),
        quarantined=(),
        golden_prompts=(),
        training_set=500,
        replay=500,
        replay_window=10_000,
        held_out_newest=500,
    )
    assert len(selected.new) == manifest.counts.training
    assert len(selected.replayed) == len(feedback) > 0
    assert len(selected.held_out) > manifest.counts.held_out
    assert verify_batches(store, artefact, whole_chain=True).faults == ()


def test_the_announcement_fits_its_manifest(tmp_path: Path) -> None:
    store = MemoryStore()
    manifest = training_manifest(imported(store, tmp_path), file(), None, 0)
    artefact = write_training_manifest(store, manifest)
    event = batch_ready_event(manifest, artefact, NOW)
    assert (event.lane, event.number, event.event_id) == ("master", 0, manifest.batch_id)
    assert verify_batches(store, artefact, event, whole_chain=True).faults == ()


def test_the_same_dataset_and_feedback_are_the_same_batch(tmp_path: Path) -> None:
    store = MemoryStore()
    first, newest = write_chain(store, 2)
    dataset = imported(store, tmp_path)
    batch = training_manifest(dataset, file(), first, 1)
    assert training_manifest(dataset, file(), first, 1) == batch
    other_hyperparameters = file(lanes={"adaptive": {}, "master": {"training": {"epochs": 2}}})
    others = [
        training_manifest(dataset, file(), newest, 2),
        training_manifest(dataset, other_hyperparameters, first, 1),
    ]
    assert len({manifest.batch_id for manifest in (dataset, batch, *others)}) == 4


def test_hyperparameters_are_announced_and_make_another_batch(tmp_path: Path) -> None:
    store = MemoryStore()
    dataset = imported(store, tmp_path)
    plain = training_manifest(dataset, file(), None, 0)
    changed = training_manifest(dataset, file(), None, 0, {"rank": 32, "epochs": 2})
    assert changed.batch_id != plain.batch_id
    artefact = write_training_manifest(store, changed)
    assert read_manifest(store, artefact) == changed
    event = batch_ready_event(changed, artefact, NOW)
    assert event.hyperparameters == {"rank": 32, "epochs": 2}
    assert verify_batches(store, artefact, event, whole_chain=True).faults == ()
    assert b"hyperparameters" not in plain.encode()
    with pytest.raises(Misconfigured, match="outside 8 to 64"):
        training_manifest(dataset, file(), None, 0, {"rank": 4})


def test_datasets_that_do_not_fit_the_model_file_are_refused(tmp_path: Path) -> None:
    store = MemoryStore()
    dataset = imported(store, tmp_path)
    with pytest.raises(Misconfigured, match="declares no lane 'master'"):
        training_manifest(dataset, file("adaptive"), None, 0)
    with pytest.raises(CommandRefused, match="changed since the import; import the file again"):
        training_manifest(dataset, file(curation={"held_out_share": 0.2}), None, 0)
    [of_feedback] = write_chain(store, 1)
    with pytest.raises(CommandRefused, match="is no imported dataset of support"):
        training_manifest(read_manifest(store, of_feedback), file(), None, 0)
