"""What is finished of each run, on this machine's disk, so that a repeat after a crash goes on from
there.

    <work>/runs/<run_id>/plan.json          parent, quarantine and withdrawals: the training set is a function of it and of the batch
                         checkpoint-<step>/ where the child would go on from
                         adapter/           what the child has written
                         trained.json       written after it, with the digests of its files
                         outcome-<n>.json   the event of evaluation n, written before it is published
    <work>/adapters/<digest>/               adapters of champions, for the child to read
    <work>/references/<digest>.json         the base's own answers to prompts

Every file is written as a whole or not at all. What writes raises RunFailed when this machine's
disk does not take it.
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
    "put back the base that the champion was made on (base.training in the model file, "
    "RATCHET_BASES), or roll the model back to its "
    "version 0, which is the base itself, and begin anew from there"
)


class RunPlan(FrozenModel):
    """What was decided before training began. `parent` is the adapter that it starts from, none for
    a fresh one. `withdrawn` are feedback ids, as far as was heard at `withdrawn_through`.
    """

    parent_version: str
    parent: Artefact | None
    lineage: Lineage = "continue"
    quarantined: tuple[str, ...]
    withdrawn: tuple[Id, ...] = ()
    withdrawn_through: Position | None = None


class TrainedRun(FrozenModel):
    """A trained adapter, with what it cost, what it learned from, and how."""

    trained: Trained
    examples_new: int
    examples_replayed: int
    examples_rehearsed: int
    files: dict[str, Digest]
    objectives: tuple[Objective, ...] = ("supervised",)
    pairs: int = 0
    negatives: int = 0


class RecordedOutcome(FrozenModel):
    """One of the two events."""

    checkpoint: CheckpointSaved | None = None
    rollback: TrainingRolledBack | None = None


class CachedAnswers(FrozenModel):
    """Answers, in the order of their prompts."""

    answers: tuple[str, ...]


class RunFolders:
    """The folder above."""

    def __init__(self, work: Path) -> None:
        self._work = work.resolve()
        self._files = FsspecStore(str(self._work))

    def plan(self, run_id: str) -> RunPlan | None:
        return self._read(f"runs/{run_id}/plan.json", RunPlan)

    def write_plan(self, run_id: str, plan: RunPlan) -> None:
        self._write(f"runs/{run_id}/plan.json", plan)

    def checkpoints_folder(self, run_id: str) -> Path:
        """Where the child keeps the checkpoints of a run."""
        return self._work / "runs" / run_id

    def adapter_folder(self, run_id: str) -> Path:
        """Where the child writes the adapter of a run."""
        return self._work / "runs" / run_id / "adapter"

    def adapter_files(self, run_id: str) -> dict[str, bytes]:
        return {
            path.name: path.read_bytes() for path in sorted(self.adapter_folder(run_id).iterdir())
        }

    def trained(self, run_id: str) -> TrainedRun | None:
        """What was trained; None when nothing was, or when it is not all there any more."""
        found = self._read(f"runs/{run_id}/trained.json", TrainedRun)
        if found is None or not self.adapter_folder(run_id).is_dir():
            return None
        return found if _digests(self.adapter_files(run_id)) == found.files else None

    def write_trained(
        self,
        run_id: str,
        trained: Trained,
        training_set: TrainingSet,
        rehearsed_count: int,
        objective_data: ObjectiveData,
    ) -> TrainedRun:
        """Record what the child has written, of how many examples of each kind it was made, and how
        it learned from them.
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
        """Record what another worker has trained, whose adapter is in its folder here by now."""
        self._write(f"runs/{run_id}/trained.json", run)

    def outcome(self, run_id: str, evaluation: int) -> Outcome | None:
        recorded = self._read(f"runs/{run_id}/outcome-{evaluation}.json", RecordedOutcome)
        return (recorded.checkpoint or recorded.rollback) if recorded else None

    def write_outcome(self, run_id: str, evaluation: int, outcome: Outcome) -> None:
        saved = isinstance(outcome, CheckpointSaved)
        recorded = (
            RecordedOutcome(checkpoint=outcome) if saved else RecordedOutcome(rollback=outcome)
        )
        self._write(f"runs/{run_id}/outcome-{evaluation}.json", recorded)

    def cached_answers(self, key: str) -> CachedAnswers | None:
        return self._read(f"references/{key}.json", CachedAnswers)

    def write_cached_answers(self, key: str, references: CachedAnswers) -> None:
        self._write(f"references/{key}.json", references)

    def fetch_adapter(self, store: ObjectStore, artefact: Artefact, base_digest: Digest) -> Path:
        """The folder of an adapter from the object store, every file verified. Only the newest one
        fetched is kept.

        Raises Missing, Corrupt or Unusable as `read_adapter`, and RunFailed when it was made on
        another base.
        """
        adapter = read_adapter(store, artefact)
        if adapter.base_digest != base_digest:
            told = (
                f"{artefact.uri} was made on a base with digest {adapter.base_digest}, the base "
                f"here has {base_digest}"
            )
            raise RunFailed(told, WRONG_BASE_ADVICE)
        name = artefact.digest.removeprefix("sha256:")
        for folder in (self._work / "adapters").glob("*"):
            if folder.name != name:
                shutil.rmtree(folder)
        for file, data in adapter.files.items():
            self._put(f"adapters/{name}/{file}", data)
        return self._work / "adapters" / name

    def discard_working_files(self, run_id: str) -> None:
        """Free what only an unfinished run needs; its records stay."""
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
                f"what the run needs could not be kept: {error}", FREE_DISK_SPACE
            ) from error


def _digests(files: dict[str, bytes]) -> dict[str, Digest]:
    return {name: digest_of(data) for name, data in files.items()}
