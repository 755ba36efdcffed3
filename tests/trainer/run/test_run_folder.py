"""Run folders: completed stages are read again, incomplete ones count as missing."""

from pathlib import Path

import pytest

from services.trainer.bus_view.registry_state import Champion
from services.trainer.errors import RunFailed
from services.trainer.machine.bases import LocalBase
from services.trainer.protocol import Trained
from services.trainer.run.outcome import FailedRun, RunFacts, outcome_event
from services.trainer.run_folder import CachedAnswers, RunFolder, RunPlan, TrainedRun, WorkFolder
from shared.config.model_file import BasePaths, ModelFile
from shared.config.training import TrainingConfig
from shared.errors import DigestMismatch, InvalidArtefact, ObjectNotFound
from shared.events import Artefact, Position
from shared.storage.adapters import read_adapter, write_adapter
from shared.storage.object_store import MemoryStore
from tests.support.tickets import DIGEST, NOW, write_batch

TRAINED = Trained(training_loss=0.5, steps=3, tokens=100, seconds=1.0)
FILES = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"weights"}
MODEL = ModelFile(model="m", base=BasePaths(training="base", serving="base/model.gguf"))


def train(folder: RunFolder) -> TrainedRun:
    """Write the files of an adapter, then the record of its training."""
    folder.adapter.mkdir(parents=True)
    for name, data in FILES.items():
        (folder.adapter / name).write_bytes(data)
    assert folder.trained() is None
    run = TrainedRun(
        trained=TRAINED,
        examples_new=0,
        examples_replayed=0,
        examples_rehearsed=1,
        files=folder.adapter_digests(),
    )
    folder.write(run)
    return run


def test_records_are_read_by_the_next_process(tmp_path: Path) -> None:
    batch = write_batch(MemoryStore(), "m", 0, [], [])
    base = LocalBase(tmp_path, "base", DIGEST)
    facts = RunFacts("r", batch, MODEL, TrainingConfig(), base)
    outcome = outcome_event(facts, 1, FailedRun(Champion("v0", None), "broken", "fix it"), NOW)
    position = Position(topic="dataset.withdrawals", partition=1, offset=3)
    plan = RunPlan(
        parent_version="v0",
        parent=None,
        quarantined=("b",),
        withdrawn=("e",),
        withdrawn_through=position,
    )
    work = WorkFolder(tmp_path)
    folder = work.run("r")
    assert (folder.plan(), folder.outcome(1), work.cached_answers("k")) == (None, None, None)
    folder.write(plan)
    folder.write(outcome)
    work.write_cached_answers("k", CachedAnswers(answers=("a", "")))
    reopened = WorkFolder(tmp_path)
    assert reopened.run("r").plan() == plan
    assert reopened.run("r").outcome(1) == outcome
    assert reopened.run("r").outcome(2) is None
    assert reopened.cached_answers("k") == CachedAnswers(answers=("a", ""))


@pytest.mark.parametrize("damage", ["cut off", "gone", "all gone"])
def test_incomplete_adapter_counts_as_not_trained(tmp_path: Path, damage: str) -> None:
    folder = WorkFolder(tmp_path).run("r")
    written = train(folder)
    assert folder.trained() == written
    weights = folder.adapter / "adapter_model.safetensors"
    match damage:
        case "cut off":
            weights.write_bytes(b"weig")
        case "gone":
            weights.unlink()
        case _:
            folder.discard_working_files()
    assert folder.trained() is None


def test_adapter_is_unchanged_by_the_object_store(tmp_path: Path) -> None:
    store = MemoryStore()
    artefact = write_adapter(store, "adapters/m/r/", FILES, DIGEST)
    assert artefact.uri == "adapters/m/r/manifest.json"
    assert list(store.objects)[-1] == artefact.uri
    assert write_adapter(store, "adapters/m/r", FILES, DIGEST) == artefact
    assert read_adapter(store, artefact).files == FILES
    folder = WorkFolder(tmp_path).fetch_adapter(store, artefact, DIGEST)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES


def test_altered_or_foreign_adapter_is_refused(tmp_path: Path) -> None:
    store = MemoryStore()
    artefact = write_adapter(store, "adapters/m/r", FILES, DIGEST)
    with pytest.raises(
        RunFailed, match=f"made on a base with digest {DIGEST}, the base here has sha256:1"
    ) as refused:
        WorkFolder(tmp_path).fetch_adapter(store, artefact, "sha256:" + "1" * 64)
    assert "base.training" in refused.value.advice
    with pytest.raises(InvalidArtefact):
        read_adapter(store, store.put("x", b"{}"))
    store.objects["adapters/m/r/adapter_config.json"] = b"[]"
    with pytest.raises(DigestMismatch):
        read_adapter(store, artefact)
    with pytest.raises(ObjectNotFound):
        read_adapter(store, Artefact(uri="nowhere", digest=DIGEST))


def test_only_the_newest_champion_is_kept(tmp_path: Path) -> None:
    store = MemoryStore()
    work = WorkFolder(tmp_path)
    older = work.fetch_adapter(store, write_adapter(store, "a", FILES, DIGEST), DIGEST)
    newer = work.fetch_adapter(
        store, write_adapter(store, "b", FILES | {"more": b""}, DIGEST), DIGEST
    )
    assert not older.exists()
    assert newer.exists()


def test_ended_run_keeps_only_its_records(tmp_path: Path) -> None:
    folder = WorkFolder(tmp_path).run("r")
    train(folder)
    for name in ("checkpoint-100", ".checkpoint-200.part"):
        (folder.path / name).mkdir()
    folder.discard_working_files()
    assert [path.name for path in (tmp_path / "runs" / "r").iterdir()] == ["trained.json"]
