"""What one worker leaves, another goes on from: whole, verified, and never set back."""

from pathlib import Path

import pytest
import structlog

from services.trainer.data.objective_data import ObjectiveData
from services.trainer.data.training_set import TrainingSet
from services.trainer.protocol import Trained
from services.trainer.run.handoff import RunHandoff
from services.trainer.run_folder import RunFolders, RunPlan
from shared.storage.object_store import FsspecStore, MemoryStore, ObjectStore
from tests.trainer.tickets import tickets

PLAN = RunPlan(parent_version="v1", parent=None, quarantined=("q",))
LOG = structlog.stdlib.get_logger()


class Worker:
    """A worker with a disk of its own."""

    def __init__(self, disk: Path, store: ObjectStore) -> None:
        self.runs = RunFolders(disk)
        self.handovers = RunHandoff(store, self.runs, LOG)
        self.folder = self.runs.checkpoints_folder("r")

    def save(self, step: int, state: bytes = b"state") -> None:
        (self.folder / f"checkpoint-{step}").mkdir(parents=True)
        (self.folder / f"checkpoint-{step}" / "state.safetensors").write_bytes(state)
        (self.folder / f"checkpoint-{step}" / "manifest.json").write_bytes(b"{}")

    def train(self) -> None:
        (self.folder / "adapter").mkdir()
        (self.folder / "adapter" / "weights").write_bytes(b"weights")
        chosen = TrainingSet(new=tickets(0, 5), replayed=tickets(5, 2), held_out=())
        self.runs.write_trained(
            "r",
            Trained(training_loss=0.5, steps=9, tokens=9, seconds=1),
            chosen,
            1,
            ObjectiveData(chosen.new),
        )


@pytest.fixture(params=["memory", "folder"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    return MemoryStore() if request.param == "memory" else FsspecStore(str(tmp_path / "objects"))


@pytest.fixture
def one(tmp_path: Path, store: ObjectStore) -> Worker:
    worker = Worker(tmp_path / "one", store)
    worker.runs.write_plan("r", PLAN)
    return worker


@pytest.fixture
def two(tmp_path: Path, store: ObjectStore) -> Worker:
    return Worker(tmp_path / "two", store)


def test_the_newest_checkpoint_and_the_plan_reach_the_next_worker(one: Worker, two: Worker) -> None:
    assert not one.handovers.upload("r"), "nothing is done yet"
    one.save(100)
    one.save(200, b"newer")
    assert one.handovers.upload("r")
    assert not one.handovers.upload("r"), "nothing is new"
    assert two.handovers.fetch("r")
    assert two.runs.plan("r") == PLAN
    assert [path.name for path in two.folder.glob("*checkpoint-*")] == ["checkpoint-200"]
    assert (two.folder / "checkpoint-200" / "state.safetensors").read_bytes() == b"newer"
    assert not two.handovers.fetch("r"), "it is here already"


def test_what_was_trained_reaches_the_next_worker(one: Worker, two: Worker) -> None:
    one.save(8)
    one.handovers.upload("r")
    one.train()
    assert one.handovers.upload("r")
    assert two.handovers.fetch("r")
    assert two.runs.trained("r") == one.runs.trained("r") is not None


def test_an_older_checkpoint_is_removed_for_a_newer_one_and_all_when_the_run_ends(
    tmp_path: Path,
) -> None:
    store = MemoryStore()
    one = Worker(tmp_path, store)
    one.runs.write_plan("r", PLAN)
    one.save(1)
    one.handovers.upload("r")
    one.save(2)
    one.handovers.upload("r")
    assert sorted(store.objects) == [
        "unfinished/r/checkpoint-2/manifest.json",
        "unfinished/r/checkpoint-2/state.safetensors",
        "unfinished/r/handover.json",
    ]
    one.handovers.clear("r")
    assert not store.objects
    one.handovers.clear("r")


def test_what_a_crash_left_without_a_handover_is_removed_when_the_run_ends(
    one: Worker, store: ObjectStore
) -> None:
    one.save(1)
    one.handovers.upload("r")
    other = store.put("unfinished/r2/handover.json", b"{}")
    store.delete("unfinished/r/handover.json")
    one.handovers.clear("r")
    assert store.list_keys("unfinished") == [other.uri]


def test_a_worker_that_slept_does_not_set_the_run_back(
    one: Worker, two: Worker, store: ObjectStore
) -> None:
    one.save(100)
    one.handovers.upload("r")
    two.handovers.fetch("r")
    two.save(200)
    assert two.handovers.upload("r")
    one.save(150)
    assert not one.handovers.upload("r")
    assert store.exists("unfinished/r/checkpoint-200/manifest.json")


def test_an_altered_or_missing_checkpoint_is_passed_over_and_the_plan_is_kept(
    one: Worker, two: Worker, store: ObjectStore
) -> None:
    one.save(100)
    one.handovers.upload("r")
    store.put("unfinished/r/checkpoint-100/state.safetensors", b"altered")
    assert not two.handovers.fetch("r")
    store.delete("unfinished/r/checkpoint-100/state.safetensors")
    assert not two.handovers.fetch("r")
    assert two.runs.plan("r") == PLAN
    assert not list(two.folder.glob("*checkpoint-*"))


def test_nonsense_in_its_place_is_passed_over(two: Worker, store: ObjectStore) -> None:
    store.put("unfinished/r/handover.json", b"nonsense")
    assert not two.handovers.fetch("r")


def test_a_worker_keeps_what_it_has_trained_itself(one: Worker, two: Worker) -> None:
    one.save(1)
    one.handovers.upload("r")
    two.runs.write_plan("r", RunPlan(parent_version="v2", parent=None, quarantined=()))
    two.folder.mkdir(exist_ok=True)
    two.train()
    assert not two.handovers.fetch("r")
    assert two.runs.plan("r") == RunPlan(parent_version="v2", parent=None, quarantined=())
