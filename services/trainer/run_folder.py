"""The trainer's folder on this machine's disk: the completed stages of each run, so that a restart
resumes from there, and caches.

    <work>/runs/<run_id>/plan.json           configuration, parent, quarantine and withdrawals; with
                                             the batch they determine the training set
                         checkpoint-<step>/  state that the training process resumes from
                         adapter/            written by the training process
                         trained.json        written after it, with the digests of its files
                         retry.json          orders a second attempt, and says why
                         retry/              checkpoints, adapter and trained.json of that attempt
                         outcome-<n>.json    event of evaluation n, written before it is published
    <work>/adapters/<digest>/                champions' adapters, for the training process to read
    <work>/references/<digest>.json          the base's own answers to prompts

Every write is atomic. Writes raise RunFailed if this machine's disk does not accept them.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from services.trainer.errors import RunFailed
from services.trainer.protocol import Trained
from services.trainer.worker.resource_exhaustion import FREE_DISK_SPACE
from shared.config.training import TrainingConfig
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
from shared.storage.adapters import adapter_files, read_adapter
from shared.storage.object_store import FsspecStore, ObjectStore

M = TypeVar("M", bound=FrozenModel)

Outcome = CheckpointSaved | TrainingRolledBack

MAX_OUTCOMES = 50

WRONG_BASE_ADVICE = (
    "put back the base that the champion was trained on (base.training in the model file, "
    "RATCHET_BASES), or roll the model back to its version 0, which is the base itself, and start "
    "again from there"
)


class RunPlan(FrozenModel):
    """Decisions made before training. `parent` is the adapter to continue from, None for a fresh
    one. `withdrawn` are feedback ids, read up to `withdrawn_through`. Without a `configuration` it
    is a plan of a version that made no choices for the base and the device, and had no built-in
    rehearsal.
    """

    parent_version: str
    parent: Artefact | None
    lineage: Lineage = "continue"
    quarantined: tuple[str, ...]
    withdrawn: tuple[Id, ...] = ()
    withdrawn_through: Position | None = None
    configuration: TrainingConfig | None = None


class RetryPlan(FrozenModel):
    """Order of a second attempt at a run, with its reason in plain text."""

    reason: str


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


class RunFolder:
    """The folder of one run. `path` holds its records."""

    def __init__(self, path: Path) -> None:
        self.run_id = path.name
        self.path = path
        self._files = FsspecStore(str(path))

    @property
    def attempt(self) -> Path:
        """Folder of the current attempt, for its checkpoints and its adapter."""
        return self.path / "retry" if self.retry() else self.path

    @property
    def adapter(self) -> Path:
        """Folder that the training process writes the current attempt's adapter into."""
        return self.attempt / "adapter"

    def plan(self) -> RunPlan | None:
        return _read(self._files, "plan.json", RunPlan)

    def decided_configuration(self, declared: TrainingConfig) -> TrainingConfig | None:
        """Return the configuration of the plan, None before there is one. An earlier version's
        plan has none: its run keeps what `declared` meant then.
        """
        plan = _read(self._files, "plan.json", RunPlan)
        if plan is None:
            return None
        return plan.configuration or declared.with_former_defaults()

    def trained(self) -> TrainedRun | None:
        """Return the current attempt's trained run; None if it is not trained yet, or its adapter
        is incomplete.
        """
        run = _read(self._files, self._trained_key, TrainedRun)
        if run is None or not self.adapter.is_dir():
            return None
        return run if self.adapter_digests() == run.files else None

    def retry(self) -> RetryPlan | None:
        """Return the order of a second attempt; None during the first one."""
        return _read(self._files, "retry.json", RetryPlan)

    def outcome(self, evaluation: int) -> Outcome | None:
        recorded = _read(self._files, f"outcome-{evaluation}.json", RecordedOutcome)
        return (recorded.checkpoint or recorded.rollback) if recorded else None

    def write(self, record: RunPlan | RetryPlan | TrainedRun | Outcome) -> None:
        """Record a completed stage. After a `RetryPlan`, records are of the second attempt."""
        stored: FrozenModel = record
        match record:
            case RunPlan():
                name = "plan.json"
            case RetryPlan():
                name = "retry.json"
            case TrainedRun():
                name = self._trained_key
            case CheckpointSaved():
                name = f"outcome-{record.evaluation}.json"
                stored = RecordedOutcome(checkpoint=record)
            case TrainingRolledBack():
                name = f"outcome-{record.evaluation}.json"
                stored = RecordedOutcome(rollback=record)
        _write(self._files, name, stored.model_dump_json().encode())

    def adapter_digests(self) -> dict[str, Digest]:
        """Return the digests of the adapter's files by name."""
        return {name: digest_of(data) for name, data in adapter_files(self.adapter).items()}

    def discard(self) -> None:
        """Delete everything of an unfinished run, which then begins again. The plan is the last to
        go: what is left of an interrupted deletion belongs to it.
        """
        self.discard_working_files()
        for record in (*self.path.glob("outcome-*.json"), *self.path.glob("**/trained.json")):
            record.unlink()
        (self.path / "retry.json").unlink(missing_ok=True)
        (self.path / "plan.json").unlink(missing_ok=True)

    def discard_working_files(self) -> None:
        """Delete the adapter and the checkpoints of a run that has ended; its records remain."""
        for attempt in (self.path, self.path / "retry"):
            for folder in (attempt / "adapter", *attempt.glob("*checkpoint-*")):
                shutil.rmtree(folder, ignore_errors=True)

    @property
    def _trained_key(self) -> str:
        return "retry/trained.json" if self.retry() else "trained.json"


class WorkFolder:
    """The folder above: the runs' folders, the champions' adapters and the base's answers."""

    def __init__(self, work: Path) -> None:
        self._work = work.resolve()
        self._files = FsspecStore(str(self._work))

    def run(self, run_id: str) -> RunFolder:
        return RunFolder(self._work / "runs" / run_id)

    def newest_outcomes(self) -> Iterator[Outcome]:
        """Yield the outcomes that this machine recorded, the newest first; an unreadable one is
        skipped. At most the newest `MAX_OUTCOMES`.
        """
        paths = sorted(
            (self._work / "runs").glob("*/outcome-*.json"),
            key=lambda path: path.stat().st_mtime,
            reverse=True,
        )
        for path in paths[:MAX_OUTCOMES]:
            try:
                recorded = RecordedOutcome.model_validate_json(path.read_bytes())
            except (OSError, ValidationError):
                continue
            if outcome := recorded.checkpoint or recorded.rollback:
                yield outcome

    def cached_answers(self, key: str) -> CachedAnswers | None:
        return _read(self._files, f"references/{key}.json", CachedAnswers)

    def write_cached_answers(self, key: str, answers: CachedAnswers) -> None:
        _write(self._files, f"references/{key}.json", answers.model_dump_json().encode())

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
            _write(self._files, f"adapters/{name}/{file}", data)
        return self._work / "adapters" / name


def _read(files: FsspecStore, key: str, kind: type[M]) -> M | None:
    return kind.model_validate_json(files.get(key)) if files.exists(key) else None


def _write(files: FsspecStore, key: str, data: bytes) -> None:
    try:
        files.put(key, data)
    except StorageUnavailable as error:
        raise RunFailed(
            f"the run's state could not be written to disk: {error}", FREE_DISK_SPACE
        ) from error
