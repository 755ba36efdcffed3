"""What the next owner of an unfinished run goes on from, in the object store: a worker elsewhere
has another disk.

    unfinished/<run_id>/handover.json        the plan, the newest checkpoint, what was trained; written last
                        <folder>/<file>      the files that it names with their digests

`handover.json` is overwritten as the run goes on; whoever reads an older one only has more to do
again.
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
    """A folder of a run's folder, with all its files."""

    name: str
    files: dict[str, Artefact]


class HandoffState(FrozenModel):
    """The state of a run after `step` steps; `trained` and its adapter are there when no step is
    left.
    """

    plan: RunPlan
    step: Count = 0
    folder: HandoffFolder | None = None
    trained: TrainedRun | None = None

    @property
    def progress(self) -> tuple[bool, int]:
        """Grows as the run goes on."""
        return self.trained is not None, self.step


class RunHandoff:
    """Between the folders of runs and the object store. Every method blocks, and raises
    StorageUnavailable.
    """

    def __init__(self, store: ObjectStore, runs: RunFolders, log: Log) -> None:
        self._store = store
        self._runs = runs
        self._log = log
        self._left: dict[str, tuple[bool, int]] = {}

    def upload(self, run_id: str) -> bool:
        """Put what is newest of a run into the store; whether that was news to it."""
        plan = self._runs.plan(run_id)
        if plan is None:
            return False
        trained = self._runs.trained(run_id)
        step, folder = (
            (0, self._runs.adapter_folder(run_id)) if trained else self._newest_checkpoint(run_id)
        )
        progress = (trained is not None, step)
        if folder is None or progress <= self._left.get(run_id, (False, 0)):
            return False
        before = self._read(run_id)
        # A worker that slept while another went on has nothing to tell.
        is_news = before is None or before.progress < progress
        if is_news:
            try:
                files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
            except FileNotFoundError:
                return False  # the child has made newer ones and thrown it away
            put = {
                name: self._store.put(f"{_place(run_id)}/{folder.name}/{name}", data)
                for name, data in files.items()
            }
            kept = HandoffFolder(name=folder.name, files=put)
            handover = HandoffState(plan=plan, step=step, folder=kept, trained=trained)
            self._store.put(_key(run_id), handover.model_dump_json().encode())
            if (
                before is not None
                and before.folder is not None
                and before.folder.name != folder.name
            ):
                self._remove(before.folder.files.values())
        self._left[run_id] = progress if before is None else max(progress, before.progress)
        return is_news

    def fetch(self, run_id: str) -> bool:
        """Bring a run's folder up to what is in the store; whether there was anything to go on
        from. What was trained here stays.

        A state that is incomplete or was altered is passed over: then its steps are done again.
        """
        handover = self._read(run_id)
        if handover is None or self._runs.trained(run_id) is not None:
            return False
        self._runs.write_plan(run_id, handover.plan)
        here, _ = self._newest_checkpoint(run_id)
        if handover.folder is None or handover.progress <= (False, here):
            return False
        try:
            files = {
                name: get_verified(self._store, artefact)
                for name, artefact in handover.folder.files.items()
            }
        except InvalidArtefact as error:
            self._log.warning(
                "a checkpoint in the object store is passed over", run=run_id, reason=str(error)
            )
            return False
        _write_whole(self._runs.checkpoints_folder(run_id) / handover.folder.name, files)
        if handover.trained is not None:
            self._runs.restore_trained(run_id, handover.trained)
        return True

    def clear(self, run_id: str) -> None:
        """Remove all of a run that has ended, what a crash has left without a handover included."""
        self._store.delete(_key(run_id))
        for key in self._store.list_keys(_place(run_id)):
            self._store.delete(key)
        self._left.pop(run_id, None)

    def _read(self, run_id: str) -> HandoffState | None:
        try:
            return HandoffState.model_validate_json(self._store.get(_key(run_id)))
        except ObjectNotFound:
            return None
        except ValidationError as error:
            self._log.warning(
                "a handover that cannot be understood is passed over", run=run_id, reason=str(error)
            )
            return None

    def _newest_checkpoint(self, run_id: str) -> tuple[int, Path | None]:
        """Its step, 0 where there is none, and its folder. One that bears the name is complete."""
        root = self._runs.checkpoints_folder(run_id)
        found = {
            int(match[1]): path
            for path in root.glob("checkpoint-*")
            if (match := _CHECKPOINT.fullmatch(path.name))
        }
        step = max(found, default=0)
        return step, found.get(step)

    def _remove(self, artefacts: Iterable[Artefact]) -> None:
        for artefact in artefacts:
            self._store.delete(artefact.uri)


def _place(run_id: str) -> str:
    return f"unfinished/{run_id}"


def _key(run_id: str) -> str:
    return f"{_place(run_id)}/handover.json"


def _write_whole(folder: Path, files: dict[str, bytes]) -> None:
    """Make a folder that is there with all its files or not at all."""
    part = folder.with_name(f".{folder.name}.fetched-{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name, data in files.items():
        (part / name).write_bytes(data)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
