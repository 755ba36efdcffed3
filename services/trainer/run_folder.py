"""Completed stages of each run, on this machine's disk, so that a restart resumes from there.

    <work>/runs/<run_id>/plan.json           parent, quarantine and withdrawals; with the batch they
                                             determine the training set
                         checkpoint-<step>/  state that the training process resumes from
                         adapter/            written by the training process
                         trained.json        written after it, with the digests of its files
                         outcome-<n>.json    event of evaluation n, written before it is published
    <work>/adapters/<digest>/                champions' adapters, for the training process to read
    <work>/references/<digest>.json          the base's own answers to prompts

Every write is atomic. Writes raise RunFailed if this machine's disk does not accept them.
"""

import shutil
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from services.trainer.data.objective_data import ObjectiveData
from services.trainer.data.training_set import TrainingSet
from services.trainer.errors import RunFailed
from services.trainer.protocol import Trained
from services.trainer.worker.resource_exhaustion import FREE_DISK_SPACE
from shared.errors import StorageUnavailable
from shared.events import (
    Artefact,
    CheckpointSaved,
    Digest,
    FrozenModel,
    Id,
    Objective,
    Position,
    TrainingRolledBack,
)
from shared.events.hyperparameters import Lineage
from shared.identity import digest_of
from shared.storage.adapters import read_adapter
from shared.storage.object_store import FsspecStore, ObjectStore

M = TypeVar("M", bound=BaseModel)

Outcome = CheckpointSaved | TrainingRolledBack

WRONG_BASE_ADVICE = (
    "put back the base that the champion was trained on (base.training in the model file, "
    "RATCHET_BASES), or roll the model back to its version 0, which is the base itself, and start "
    "again from there"
)


class RunPlan(FrozenModel):
    """Decisions made before training. `parent` is the adapter to continue from, None for a fresh
    one. `withdrawn` are feedback ids, read up to `withdrawn_through`.
    """

    parent_version: str
    parent: Artefact | None
    lineage: Lineage = "continue"
    quarantined: tuple[str, ...]
    withdrawn: tuple[Id, ...] = ()
    withdrawn_through: Position | None = None


class TrainedRun(FrozenModel):
    """A trained adapter, with its cost, its examples and its objectives."""

    trained: Trained
    examples_new: int
    examples_replayed: int
    examples_rehearsed: int
    files: dict[str, Digest]
    objectives: tuple[Objective, ...] = ("supervised",)
    pairs: int = 0
    negatives: int = 0


class RecordedOutcome(FrozenModel):
    """Exactly one of the two events."""

    checkpoint: CheckpointSaved | None = None
    rollback: TrainingRolledBack | None = None


class CachedAnswers(FrozenModel):
    """Answers, in the order of their prompts."""

    answers: tuple[str, ...]


class RunFolders:
    """Reads and writes the folders above."""

    def __init__(self, work: Path) -> None:
        self._work = work.resolve()
        self._files = FsspecStore(str(self._work))

    def plan(self, run_id: str) -> RunPlan | None:
        return self._read(f"runs/{run_id}/plan.json", RunPlan)

    def write_plan(self, run_id: str, plan: RunPlan) -> None:
        self._write(f"runs/{run_id}/plan.json", plan)

    def checkpoints_folder(self, run_id: str) -> Path:
        """Return the folder in which the training process keeps a run's checkpoints."""
        return self._work / "runs" / run_id

    def adapter_folder(self, run_id: str) -> Path:
        """Return the folder into which the training process writes a run's adapter."""
        return self._work / "runs" / run_id / "adapter"

    def adapter_files(self, run_id: str) -> dict[str, bytes]:
        return {
            path.name: path.read_bytes() for path in sorted(self.adapter_folder(run_id).iterdir())
        }

    def trained(self, run_id: str) -> TrainedRun | None:
        """Return the trained run; None if it is not trained yet, or its adapter is incomplete."""
        run = self._read(f"runs/{run_id}/trained.json", TrainedRun)
        if run is None or not self.adapter_folder(run_id).is_dir():
            return None
        return run if _digests(self.adapter_files(run_id)) == run.files else None

    def write_trained(
        self,
        run_id: str,
        trained: Trained,
        training_set: TrainingSet,
        rehearsed_count: int,
        objective_data: ObjectiveData,
    ) -> TrainedRun:
        """Record the adapter in its folder, the number of examples of each kind, and the
        objectives.
        """
        run = TrainedRun(
            trained=trained,
            examples_new=len(training_set.new),
            examples_replayed=len(training_set.replayed),
            examples_rehearsed=rehearsed_count,
            files=_digests(self.adapter_files(run_id)),
            objectives=objective_data.objectives,
            pairs=len(training_set.pairs),
            negatives=len(training_set.negatives),
        )
        self._write(f"runs/{run_id}/trained.json", run)
        return run

    def restore_trained(self, run_id: str, run: TrainedRun) -> None:
        """Record another worker's trained run, whose adapter is already in its folder here."""
        self._write(f"runs/{run_id}/trained.json", run)

    def outcome(self, run_id: str, evaluation: int) -> Outcome | None:
        recorded = self._read(f"runs/{run_id}/outcome-{evaluation}.json", RecordedOutcome)
        return (recorded.checkpoint or recorded.rollback) if recorded else None

    def write_outcome(self, run_id: str, evaluation: int, outcome: Outcome) -> None:
        recorded = (
            RecordedOutcome(checkpoint=outcome)
            if isinstance(outcome, CheckpointSaved)
            else RecordedOutcome(rollback=outcome)
        )
        self._write(f"runs/{run_id}/outcome-{evaluation}.json", recorded)

    def cached_answers(self, key: str) -> CachedAnswers | None:
        return self._read(f"references/{key}.json", CachedAnswers)

    def write_cached_answers(self, key: str, answers: CachedAnswers) -> None:
        self._write(f"references/{key}.json", answers)

    def fetch_adapter(self, store: ObjectStore, artefact: Artefact, base_digest: Digest) -> Path:
        """Download an adapter, verify every file, and return its folder. Only the newest one is
        kept.

        Raises the errors of `read_adapter`, and RunFailed if the adapter belongs to another base.
        """
        adapter = read_adapter(store, artefact)
        if adapter.base_digest != base_digest:
            reason = (
                f"{artefact.uri} was made on a base with digest {adapter.base_digest}, the base "
                f"here has {base_digest}"
            )
            raise RunFailed(reason, WRONG_BASE_ADVICE)
        name = artefact.digest.removeprefix("sha256:")
        for folder in (self._work / "adapters").glob("*"):
            if folder.name != name:
                shutil.rmtree(folder)
        for file, data in adapter.files.items():
            self._put(f"adapters/{name}/{file}", data)
        return self._work / "adapters" / name

    def discard_working_files(self, run_id: str) -> None:
        """Delete the adapter and the checkpoints of a run that has ended; its records remain."""
        for folder in (
            self.adapter_folder(run_id),
            *self.checkpoints_folder(run_id).glob("*checkpoint-*"),
        ):
            shutil.rmtree(folder, ignore_errors=True)

    def _read(self, key: str, kind: type[M]) -> M | None:
        return kind.model_validate_json(self._files.get(key)) if self._files.exists(key) else None

    def _write(self, key: str, value: BaseModel) -> None:
        self._put(key, value.model_dump_json().encode())

    def _put(self, key: str, data: bytes) -> None:
        try:
            self._files.put(key, data)
        except StorageUnavailable as error:
            raise RunFailed(
                f"the run's state could not be written to disk: {error}", FREE_DISK_SPACE
            ) from error


def _digests(files: dict[str, bytes]) -> dict[str, Digest]:
    return {name: digest_of(data) for name, data in files.items()}
