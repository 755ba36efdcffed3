"""Hand-off of an unfinished run through the object store, for a next owner with another disk.

    unfinished/<run_id>/handover.json    plan, newest checkpoint, trained run; written last
                        <folder>/<file>  the files that it lists, with their digests

`handover.json` is overwritten as the run proceeds; a reader of an older one repeats more steps.
"""

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from services.trainer.run_folder import RunFolders, RunPlan, TrainedRun
from shared.errors import InvalidArtefact, ObjectNotFound
from shared.events import Artefact, Count, FrozenModel
from shared.logs import Log
from shared.storage.object_store import ObjectStore, get_verified

_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


class HandoffFolder(FrozenModel):
    """A sub-folder of a run's folder, with all its files."""

    name: str
    files: dict[str, Artefact]


class HandoffState(FrozenModel):
    """The state of a run after `step` steps; `trained` and its adapter are set after the last."""

    plan: RunPlan
    step: Count = 0
    folder: HandoffFolder | None = None
    trained: TrainedRun | None = None

    @property
    def progress(self) -> tuple[bool, int]:
        """Orders states of one run by progress."""
        return self.trained is not None, self.step


class RunHandoff:
    """Copies run state between the run folders and the object store. Every method blocks, and
    raises StorageUnavailable.
    """

    def __init__(self, store: ObjectStore, folders: RunFolders, log: Log) -> None:
        self._store = store
        self._folders = folders
        self._log = log
        self._uploaded: dict[str, tuple[bool, int]] = {}

    def upload(self, run_id: str) -> bool:
        """Upload the newest state of a run. Return True if the store had an older one."""
        plan = self._folders.plan(run_id)
        if plan is None:
            return False
        trained = self._folders.trained(run_id)
        step, folder = (
            (0, self._folders.adapter_folder(run_id))
            if trained
            else self._newest_checkpoint(run_id)
        )
        progress = (trained is not None, step)
        if folder is None or progress <= self._uploaded.get(run_id, (False, 0)):
            return False
        previous = self._read(run_id)
        # After a long pause of this worker, another one may have uploaded newer state.
        is_newer = previous is None or previous.progress < progress
        if is_newer:
            try:
                files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
            except FileNotFoundError:
                return False  # the training process replaced this checkpoint by a newer one
            artefacts = {
                name: self._store.put(f"{_prefix(run_id)}/{folder.name}/{name}", data)
                for name, data in files.items()
            }
            state = HandoffState(
                plan=plan,
                step=step,
                folder=HandoffFolder(name=folder.name, files=artefacts),
                trained=trained,
            )
            self._store.put(_key(run_id), state.model_dump_json().encode())
            if previous and previous.folder and previous.folder.name != folder.name:
                self._delete(previous.folder.files.values())
        self._uploaded[run_id] = progress if previous is None else max(progress, previous.progress)
        return is_newer

    def fetch(self, run_id: str) -> bool:
        """Download the state of a run if it is newer than the local one. Return True if it was.

        A run trained here is never overwritten. Incomplete or altered state is skipped: its steps
        are repeated.
        """
        state = self._read(run_id)
        if state is None or self._folders.trained(run_id) is not None:
            return False
        self._folders.write_plan(run_id, state.plan)
        local_step, _ = self._newest_checkpoint(run_id)
        if state.folder is None or state.progress <= (False, local_step):
            return False
        try:
            files = {
                name: get_verified(self._store, artefact)
                for name, artefact in state.folder.files.items()
            }
        except InvalidArtefact as error:
            self._log.warning("invalid hand-off checkpoint skipped", run=run_id, reason=str(error))
            return False
        _write_atomically(self._folders.checkpoints_folder(run_id) / state.folder.name, files)
        if state.trained is not None:
            self._folders.restore_trained(run_id, state.trained)
        return True

    def clear(self, run_id: str) -> None:
        """Delete all objects of a run that has ended, including those of an upload cut short."""
        self._store.delete(_key(run_id))
        for key in self._store.list_keys(_prefix(run_id)):
            self._store.delete(key)
        self._uploaded.pop(run_id, None)

    def _read(self, run_id: str) -> HandoffState | None:
        try:
            return HandoffState.model_validate_json(self._store.get(_key(run_id)))
        except ObjectNotFound:
            return None
        except ValidationError as error:
            self._log.warning("unreadable hand-off skipped", run=run_id, reason=str(error))
            return None

    def _newest_checkpoint(self, run_id: str) -> tuple[int, Path | None]:
        """Return its step and folder; 0 and None if there is none. A folder with the final name is
        complete.
        """
        root = self._folders.checkpoints_folder(run_id)
        checkpoints = {
            int(match[1]): path
            for path in root.glob("checkpoint-*")
            if (match := _CHECKPOINT.fullmatch(path.name))
        }
        step = max(checkpoints, default=0)
        return step, checkpoints.get(step)

    def _delete(self, artefacts: Iterable[Artefact]) -> None:
        for artefact in artefacts:
            self._store.delete(artefact.uri)


def _prefix(run_id: str) -> str:
    return f"unfinished/{run_id}"


def _key(run_id: str) -> str:
    return f"{_prefix(run_id)}/handover.json"


def _write_atomically(folder: Path, files: dict[str, bytes]) -> None:
    """Create a folder with all its files, or not at all."""
    part = folder.with_name(f".{folder.name}.fetched-{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name, data in files.items():
        (part / name).write_bytes(data)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
