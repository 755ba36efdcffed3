"""Hand-off of a run between workers: complete, verified, and never back to an older state."""

from pathlib import Path

import pytest
import structlog

from services.trainer.protocol import Trained
from services.trainer.run.handoff import RunHandoff
from services.trainer.run_folder import RetryPlan, RunPlan, TrainedRun, WorkFolder
from shared.observability.metrics import Metrics
from shared.storage.object_store import FsspecStore, MemoryStore, ObjectStore

RETRY = RetryPlan(reason="second attempt")
PLAN = RunPlan(parent_version="v1", parent=None, quarantined=("q",))
LOG = structlog.stdlib.get_logger()


class Worker:
    """A worker with its own disk."""

    def __init__(self, disk: Path, store: ObjectStore) -> None:
        self.folder = WorkFolder(disk).run("r")
        self.handoff = RunHandoff(store, self.folder, "m", LOG, Metrics("trainer"))

    def save(self, step: int, state: bytes = b"state") -> None:
        checkpoint = self.folder.attempt / f"checkpoint-{step}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "state.safetensors").write_bytes(state)
        (checkpoint / "manifest.json").write_bytes(b"{}")

    def train(self) -> None:
        self.folder.adapter.mkdir(parents=True)
        (self.folder.adapter / "weights").write_bytes(b"weights")
        self.folder.write(
            TrainedRun(
                trained=Trained(training_loss=0.5, steps=9, tokens=9, seconds=1),
                examples_new=5,
                examples_replayed=2,
                examples_rehearsed=1,
                files=self.folder.adapter_digests(),
            )
        )


@pytest.fixture(params=["memory", "folder"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    return MemoryStore() if request.param == "memory" else FsspecStore(str(tmp_path / "objects"))


@pytest.fixture
def first(tmp_path: Path, store: ObjectStore) -> Worker:
    worker = Worker(tmp_path / "first", store)
    worker.folder.write(PLAN)
    return worker


@pytest.fixture
def second(tmp_path: Path, store: ObjectStore) -> Worker:
    return Worker(tmp_path / "second", store)


def test_newest_checkpoint_and_plan_reach_the_next_worker(first: Worker, second: Worker) -> None:
    assert not first.handoff.upload(), "there is no state yet"
    first.save(100)
    first.save(200, b"newer")
    assert first.handoff.upload()
    assert not first.handoff.upload(), "there is no newer state"
    assert second.handoff.fetch()
    assert second.folder.plan() == PLAN
    assert [path.name for path in second.folder.path.glob("*checkpoint-*")] == ["checkpoint-200"]
    assert (second.folder.path / "checkpoint-200" / "state.safetensors").read_bytes() == b"newer"
    assert not second.handoff.fetch(), "the local state is as new"


def test_trained_run_reaches_the_next_worker(first: Worker, second: Worker) -> None:
    first.save(8)
    first.handoff.upload()
    first.train()
    assert first.handoff.upload()
    assert second.handoff.fetch()
    assert second.folder.trained() == first.folder.trained() is not None


def test_old_checkpoints_are_removed_and_all_at_the_end(
    tmp_path: Path,
) -> None:
    store = MemoryStore()
    first = Worker(tmp_path, store)
    first.folder.write(PLAN)
    first.save(1)
    first.handoff.upload()
    first.save(2)
    first.handoff.upload()
    assert sorted(store.objects) == [
        "unfinished/r/checkpoint-2/manifest.json",
        "unfinished/r/checkpoint-2/state.safetensors",
        "unfinished/r/handover.json",
    ]
    first.handoff.clear()
    assert not store.objects
    first.handoff.clear()


def test_incomplete_uploads_are_removed_at_the_end(first: Worker, store: ObjectStore) -> None:
    first.save(1)
    first.handoff.upload()
    other_run = store.put("unfinished/r2/handover.json", b"{}")
    store.delete("unfinished/r/handover.json")
    first.handoff.clear()
    assert store.list_keys("unfinished") == [other_run.uri]


def test_paused_worker_does_not_overwrite_newer_state(
    first: Worker, second: Worker, store: ObjectStore
) -> None:
    first.save(100)
    first.handoff.upload()
    second.handoff.fetch()
    second.save(200)
    assert second.handoff.upload()
    first.save(150)
    assert not first.handoff.upload()
    assert store.exists("unfinished/r/checkpoint-200/manifest.json")


def test_invalid_checkpoint_is_skipped_and_plan_kept(
    first: Worker, second: Worker, store: ObjectStore
) -> None:
    first.save(100)
    first.handoff.upload()
    store.put("unfinished/r/checkpoint-100/state.safetensors", b"altered")
    assert not second.handoff.fetch()
    store.delete("unfinished/r/checkpoint-100/state.safetensors")
    assert not second.handoff.fetch()
    assert second.folder.plan() == PLAN
    assert not list(second.folder.path.glob("*checkpoint-*"))


def test_unreadable_state_is_skipped(second: Worker, store: ObjectStore) -> None:
    store.put("unfinished/r/handover.json", b"nonsense")
    assert not second.handoff.fetch()


def test_local_trained_run_is_never_overwritten(first: Worker, second: Worker) -> None:
    first.save(1)
    first.handoff.upload()
    second.folder.write(RunPlan(parent_version="v2", parent=None, quarantined=()))
    second.train()
    assert not second.handoff.fetch()
    assert second.folder.plan() == RunPlan(parent_version="v2", parent=None, quarantined=())


def test_second_attempt_replaces_the_first_of_the_next_worker(
    first: Worker, second: Worker
) -> None:
    """The next worker had trained the first attempt, and takes over after the retry's first
    checkpoint; the late first worker of the first attempt changes nothing any more.
    """
    first.train()
    first.handoff.upload()
    assert second.handoff.fetch()
    first.folder.write(RETRY)
    assert first.folder.trained() is None
    assert not first.handoff.upload(), "the second attempt has no state yet"
    first.save(5, b"gentler")
    assert first.handoff.upload()
    assert second.handoff.fetch()
    assert second.folder.retry() == RETRY
    assert second.folder.trained() is None
    assert [path.name for path in second.folder.attempt.iterdir()] == ["checkpoint-5"]
    assert not second.handoff.fetch(), "the local state is as new"
    second.train()
    assert second.handoff.upload()
    assert first.handoff.fetch()
    assert first.folder.trained() == second.folder.trained() is not None


def test_first_attempt_never_replaces_a_second_one(
    first: Worker, second: Worker, store: ObjectStore
) -> None:
    first.save(100)
    first.handoff.upload()
    second.folder.write(PLAN)
    second.folder.write(RETRY)
    second.save(5)
    assert not second.handoff.fetch()
    assert second.handoff.upload()
    first.train()
    assert not first.handoff.upload()
    assert store.exists("unfinished/r/checkpoint-5/manifest.json")
    assert second.folder.retry() == RETRY


def test_ended_run_keeps_no_files_of_either_attempt(first: Worker) -> None:
    first.train()
    first.save(1)
    first.folder.write(RETRY)
    first.train()
    first.save(2)
    first.folder.discard_working_files()
    names = {
        path.relative_to(first.folder.path).as_posix() for path in first.folder.path.rglob("*")
    }
    assert names == {"plan.json", "trained.json", "retry.json", "retry", "retry/trained.json"}
