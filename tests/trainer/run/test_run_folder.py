"""What is finished of a run is found again, and what is not all there counts as not done."""

from pathlib import Path

import pytest

from services.trainer.bus_view.registry_state import Champion
from services.trainer.data.objective_data import ObjectiveData
from services.trainer.data.training_set import TrainingSet
from services.trainer.errors import RunFailed
from services.trainer.machine.bases import LocalBase as LocalBase
from services.trainer.protocol import Trained
from services.trainer.run.training_run import failed
from services.trainer.run_folder import CachedAnswers, RunFolders, RunPlan
from shared.clock import ManualClock
from shared.config.model_file import BasePaths, ModelFile
from shared.errors import DigestMismatch, InvalidArtefact, ObjectNotFound
from shared.events import Artefact, Position
from shared.storage.adapters import read_adapter, write_adapter
from shared.storage.object_store import MemoryStore
from tests.trainer.tickets import DIGEST, NOW, write_batch

TRAINED = Trained(training_loss=0.5, steps=3, tokens=100, seconds=1.0)
FILES = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"weights"}
MODEL = ModelFile(model="m", base=BasePaths(training="base", serving="base/model.gguf"))


def write_files(runs: RunFolders, run_id: str) -> None:
    folder = runs.adapter_folder(run_id)
    folder.mkdir(parents=True)
    for name, data in FILES.items():
        (folder / name).write_bytes(data)


def test_what_was_written_is_read_by_the_next_process(tmp_path: Path) -> None:
    batch = write_batch(MemoryStore(), "m", 0, [], [])
    here = LocalBase(tmp_path, "base", DIGEST)
    outcome = failed(
        batch, "r", MODEL, Champion("v0", None), here, 1, "broken", "mend it", ManualClock(NOW)
    )
    heard = Position(topic="dataset.withdrawals", partition=1, offset=3)
    plan = RunPlan(
        parent_version="v0",
        parent=None,
        quarantined=("b",),
        withdrawn=("e",),
        withdrawn_through=heard,
    )
    runs = RunFolders(tmp_path)
    assert (runs.plan("r"), runs.outcome("r", 1), runs.cached_answers("k")) == (None, None, None)
    runs.write_plan("r", plan)
    runs.write_outcome("r", 1, outcome)
    runs.write_cached_answers("k", CachedAnswers(answers=("a", "")))
    again = RunFolders(tmp_path)
    assert again.plan("r") == plan
    assert again.outcome("r", 1) == outcome
    assert again.outcome("r", 2) is None
    assert again.cached_answers("k") == CachedAnswers(answers=("a", ""))


@pytest.mark.parametrize("damage", ["cut off", "gone", "all gone"])
def test_a_trained_adapter_that_is_not_whole_is_trained_again(tmp_path: Path, damage: str) -> None:
    runs = RunFolders(tmp_path)
    write_files(runs, "r")
    assert runs.trained("r") is None
    written = runs.write_trained("r", TRAINED, TrainingSet([], [], []), 1, ObjectiveData(()))
    assert runs.trained("r") == written
    weights = runs.adapter_folder("r") / "adapter_model.safetensors"
    match damage:
        case "cut off":
            weights.write_bytes(b"weig")
        case "gone":
            weights.unlink()
        case _:
            runs.discard_working_files("r")
    assert runs.trained("r") is None


def test_an_adapter_goes_through_the_object_store_unchanged(tmp_path: Path) -> None:
    store = MemoryStore()
    artefact = write_adapter(store, "adapters/m/r/", FILES, DIGEST)
    assert artefact.uri == "adapters/m/r/manifest.json"
    assert list(store.objects)[-1] == artefact.uri
    assert write_adapter(store, "adapters/m/r", FILES, DIGEST) == artefact
    assert read_adapter(store, artefact).files == FILES
    folder = RunFolders(tmp_path).fetch_adapter(store, artefact, DIGEST)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES


def test_an_adapter_that_was_altered_or_belongs_elsewhere_is_refused(tmp_path: Path) -> None:
    store = MemoryStore()
    artefact = write_adapter(store, "adapters/m/r", FILES, DIGEST)
    with pytest.raises(
        RunFailed, match=f"made on a base with digest {DIGEST}, the base here has sha256:1"
    ) as refused:
        RunFolders(tmp_path).fetch_adapter(store, artefact, "sha256:" + "1" * 64)
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
    runs = RunFolders(tmp_path)
    one = runs.fetch_adapter(store, write_adapter(store, "a", FILES, DIGEST), DIGEST)
    two = runs.fetch_adapter(
        store, write_adapter(store, "b", FILES | {"more": b""}, DIGEST), DIGEST
    )
    assert not one.exists()
    assert two.exists()


def test_a_run_that_ended_leaves_its_records_only(tmp_path: Path) -> None:
    runs = RunFolders(tmp_path)
    write_files(runs, "r")
    for name in ("checkpoint-100", ".checkpoint-200.part"):
        (runs.checkpoints_folder("r") / name).mkdir()
    runs.write_trained("r", TRAINED, TrainingSet([], [], []), 1, ObjectiveData(()))
    runs.discard_working_files("r")
    assert [path.name for path in (tmp_path / "runs" / "r").iterdir()] == ["trained.json"]
