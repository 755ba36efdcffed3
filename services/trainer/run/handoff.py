"""Hand-off of an unfinished run through the object store, for a next owner with another disk.

    unfinished/<run_id>/handover.json    plan, newest checkpoint, trained run; written last
                        <folder>/<file>  the files that it lists, with their digests

`handover.json` is overwritten as the run proceeds; a reader of an older one repeats more steps.
"""

import asyncio
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from services.trainer.run_folder import RetryPlan, RunFolder, RunPlan, TrainedRun
from shared.errors import InvalidArtefact, ObjectNotFound, StorageUnavailable
from shared.events import Artefact, Count, FrozenModel
from shared.logs import Log
from shared.observability.metrics import Metrics
from shared.storage.keys import FileName
from shared.storage.object_store import ObjectStore, get_verified

_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


class HandoffFolder(FrozenModel):
    """A sub-folder of an attempt's folder, with all its files."""

    name: FileName
    files: dict[FileName, Artefact]


class HandoffState(FrozenModel):
    """The state of a run after `step` steps of its current attempt; `trained` and its adapter are
    set after the last. `retry` is set in the second attempt.
    """

    plan: RunPlan
    retry: RetryPlan | None = None
    step: Count = 0
    folder: HandoffFolder | None = None
    trained: TrainedRun | None = None

    @property
    def progress(self) -> tuple[bool, bool, int]:
        """Orders states of one run by progress."""
        return self.retry is not None, self.trained is not None, self.step


class RunHandoff:
    """Copies the state of one run between its folder and the object store. `log` is bound to the
    run. Every method but `upload_newest` blocks, and raises StorageUnavailable.
    """

    def __init__(
        self, store: ObjectStore, folder: RunFolder, model: str, log: Log, metrics: Metrics
    ) -> None:
        self._store = store
        self._folder = folder
        self._model = model
        self._log = log
        self._metrics = metrics
        self._prefix = f"unfinished/{folder.run_id}"
        self._key = f"{self._prefix}/handover.json"
        self._uploaded = (False, False, 0)

    async def upload_newest(self) -> None:
        """Upload the newest state of the run for a next owner. An unavailable object store is
        logged: it does not stop training.
        """
        try:
            if await asyncio.to_thread(self.upload):
                self._metrics.count("ratchet_training_checkpoints_total", model=self._model)
        except StorageUnavailable as error:
            self._log.warning("run state not uploaded", reason=str(error))

    def upload(self) -> bool:
        """Upload the newest state of the run. Return True if the store had an older one."""
        plan = self._folder.plan()
        if plan is None:
            return False
        retry, trained = self._local_state()
        step, folder = (0, self._folder.adapter) if trained else self._newest_checkpoint()
        progress = (retry is not None, trained is not None, step)
        if folder is None or progress <= self._uploaded:
            return False
        previous = self._read()
        # After a long pause of this worker, another one may have uploaded newer state.
        is_newer = previous is None or previous.progress < progress
        if is_newer:
            try:
                files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
            except FileNotFoundError:
                return False  # the training process replaced this checkpoint by a newer one
            artefacts = {
                name: self._store.put(f"{self._prefix}/{folder.name}/{name}", data)
                for name, data in files.items()
            }
            state = HandoffState(
                plan=plan,
                retry=retry,
                step=step,
                folder=HandoffFolder(name=folder.name, files=artefacts),
                trained=trained,
            )
            self._store.put(self._key, state.model_dump_json().encode())
            if previous and previous.folder and previous.folder.name != folder.name:
                self._delete(previous.folder.files.values())
        self._uploaded = progress if previous is None else max(progress, previous.progress)
        return is_newer

    def plan(self) -> RunPlan | None:
        """Return the plan in the object store, None without one."""
        state = self._read()
        return state.plan if state else None

    def fetch(self) -> bool:
        """Download the state of the run if it is newer than the local one. Return True if it was.

        An attempt trained here is never overwritten. Incomplete or altered state is skipped: its
        steps are repeated.
        """
        state = self._read()
        if state is None:
            return False
        retry, trained = self._local_state()
        if trained is not None and (retry is not None or state.retry is None):
            return False
        self._folder.write(state.plan)
        local_step, _ = self._newest_checkpoint()
        if state.folder is None or state.progress <= (retry is not None, False, local_step):
            return False
        try:
            files = {
                name: get_verified(self._store, artefact)
                for name, artefact in state.folder.files.items()
            }
        except InvalidArtefact as error:
            self._log.warning("invalid hand-off checkpoint skipped", reason=str(error))
            return False
        if state.retry is not None:
            self._folder.write(state.retry)
        _write_atomically(self._folder.attempt / state.folder.name, files)
        if state.trained is not None:
            self._folder.write(state.trained)
        return True

    def clear(self) -> None:
        """Delete all objects of a run that has ended, including those of an upload cut short."""
        self._store.delete(self._key)
        for key in self._store.list_keys(self._prefix):
            self._store.delete(key)

    def _read(self) -> HandoffState | None:
        try:
            return HandoffState.model_validate_json(self._store.get(self._key))
        except ObjectNotFound:
            return None
        except ValidationError as error:
            self._log.warning("unreadable hand-off skipped", reason=str(error))
            return None

    def _local_state(self) -> tuple[RetryPlan | None, TrainedRun | None]:
        return self._folder.retry(), self._folder.trained()

    def _newest_checkpoint(self) -> tuple[int, Path | None]:
        """Return its step and folder; 0 and None if there is none. A folder with the final name is
        complete.
        """
        checkpoints = {
            int(match[1]): path
            for path in self._folder.attempt.glob("checkpoint-*")
            if (match := _CHECKPOINT.fullmatch(path.name))
        }
        step = max(checkpoints, default=0)
        return step, checkpoints.get(step)

    def _delete(self, artefacts: Iterable[Artefact]) -> None:
        for artefact in artefacts:
            self._store.delete(artefact.uri)


def _write_atomically(folder: Path, files: dict[str, bytes]) -> None:
    """Create a folder with all its files, or not at all."""
    part = folder.with_name(f".{folder.name}.fetched-{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name, data in files.items():
        (part / name).write_bytes(data)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
