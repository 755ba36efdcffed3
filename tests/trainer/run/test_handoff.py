"""Hand-off of a run between workers: complete, verified, and never back to an older state."""

from pathlib import Path

import pytest
import structlog

from services.trainer.data.objective_data import ObjectiveData
from services.trainer.data.training_set import TrainingSet
from services.trainer.protocol import Trained
from services.trainer.run.handoff import RunHandoff
from services.trainer.run_folder import RunFolders, RunPlan
from shared.storage.object_store import FsspecStore, MemoryStore, ObjectStore
from tests.support.tickets import tickets

PLAN = RunPlan(parent_version="v1", parent=None, quarantined=("q",))
LOG = structlog.stdlib.get_logger()


class Worker:
    """A worker with its own disk."""

    def __init__(self, disk: Path, store: ObjectStore) -> None:
        self.runs = RunFolders(disk)
        self.handoff = RunHandoff(store, self.runs, LOG)
        self.folder = self.runs.checkpoints_folder("r")

    def save(self, step: int, state: bytes = b"state") -> None:
        (self.folder / f"checkpoint-{step}").mkdir(parents=True)
        (self.folder / f"checkpoint-{step}" / "state.safetensors").write_bytes(state)
        (self.folder / f"checkpoint-{step}" / "manifest.json").write_bytes(b"{}")

    def train(self) -> None:
        (self.folder / "adapter").mkdir()
        (self.folder / "adapter" / "weights").write_bytes(b"weights")
        training_set = TrainingSet(new=tickets(0, 5), replayed=tickets(5, 2), held_out=())
        self.runs.write_trained(
            "r",
            Trained(training_loss=0.5, steps=9, tokens=9, seconds=1),
            training_set,
            1,
            ObjectiveData(training_set.new),
        )


@pytest.fixture(params=["memory", "folder"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    return MemoryStore() if request.param == "memory" else FsspecStore(str(tmp_path / "objects"))


@pytest.fixture
def first(tmp_path: Path, store: ObjectStore) -> Worker:
    worker = Worker(tmp_path / "first", store)
    worker.runs.write_plan("r", PLAN)
    return worker


@pytest.fixture
def second(tmp_path: Path, store: ObjectStore) -> Worker:
    return Worker(tmp_path / "second", store)


def test_newest_checkpoint_and_plan_reach_the_next_worker(first: Worker, second: Worker) -> None:
    assert not first.handoff.upload("r"), "there is no state yet"
    first.save(100)
    first.save(200, b"newer")
    assert first.handoff.upload("r")
    assert not first.handoff.upload("r"), "there is no newer state"
    assert second.handoff.fetch("r")
    assert second.runs.plan("r") == PLAN
    assert [path.name for path in second.folder.glob("*checkpoint-*")] == ["checkpoint-200"]
    assert (second.folder / "checkpoint-200" / "state.safetensors").read_bytes() == b"newer"
    assert not second.handoff.fetch("r"), "the local state is as new"


def test_trained_run_reaches_the_next_worker(first: Worker, second: Worker) -> None:
    first.save(8)
    first.handoff.upload("r")
    first.train()
    assert first.handoff.upload("r")
    assert second.handoff.fetch("r")
    assert second.runs.trained("r") == first.runs.trained("r") is not None


def test_old_checkpoints_are_removed_and_all_at_the_end(
    tmp_path: Path,
) -> None:
    store = MemoryStore()
    first = Worker(tmp_path, store)
    first.runs.write_plan("r", PLAN)
    first.save(1)
    first.handoff.upload("r")
    first.save(2)
    first.handoff.upload("r")
    assert sorted(store.objects) == [
        "unfinished/r/checkpoint-2/manifest.json",
        "unfinished/r/checkpoint-2/state.safetensors",
        "unfinished/r/handover.json",
    ]
    first.handoff.clear("r")
    assert not store.objects
    first.handoff.clear("r")


def test_incomplete_uploads_are_removed_at_the_end(first: Worker, store: ObjectStore) -> None:
    first.save(1)
    first.handoff.upload("r")
    other_run = store.put("unfinished/r2/handover.json", b"{}")
    store.delete("unfinished/r/handover.json")
    first.handoff.clear("r")
    assert store.list_keys("unfinished") == [other_run.uri]


def test_paused_worker_does_not_overwrite_newer_state(
    first: Worker, second: Worker, store: ObjectStore
) -> None:
    first.save(100)
    first.handoff.upload("r")
    second.handoff.fetch("r")
    second.save(200)
    assert second.handoff.upload("r")
    first.save(150)
    assert not first.handoff.upload("r")
    assert store.exists("unfinished/r/checkpoint-200/manifest.json")


def test_invalid_checkpoint_is_skipped_and_plan_kept(
    first: Worker, second: Worker, store: ObjectStore
) -> None:
    first.save(100)
    first.handoff.upload("r")
    store.put("unfinished/r/checkpoint-100/state.safetensors", b"altered")
    assert not second.handoff.fetch("r")
    store.delete("unfinished/r/checkpoint-100/state.safetensors")
    assert not second.handoff.fetch("r")
    assert second.runs.plan("r") == PLAN
    assert not list(second.folder.glob("*checkpoint-*"))


def test_unreadable_state_is_skipped(second: Worker, store: ObjectStore) -> None:
    store.put("unfinished/r/handover.json", b"nonsense")
    assert not second.handoff.fetch("r")


def test_local_trained_run_is_never_overwritten(first: Worker, second: Worker) -> None:
    first.save(1)
    first.handoff.upload("r")
    second.runs.write_plan("r", RunPlan(parent_version="v2", parent=None, quarantined=()))
    second.folder.mkdir(exist_ok=True)
    second.train()
    assert not second.handoff.fetch("r")
    assert second.runs.plan("r") == RunPlan(parent_version="v2", parent=None, quarantined=())
