"""Checkpoints of a run on disk: atomic folders `checkpoint-<step>`, of which the newest two are
kept.

    state.safetensors   trainable parameters, optimizer state and random number generator state
    course.json         the run's progress and the state of the gradient scaler
    manifest.json       the run's key and the digests of the other two files

A folder is written under a temporary name, synced to disk and renamed. It contains no code: no
pickle.
"""

import logging
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from shared.errors import DigestMismatch
from shared.events import Digest, FrozenModel
from shared.failpoints import reach_in_thread
from shared.identity import digest_of

KEEP = 2
STATE, PROGRESS, MANIFEST = "state.safetensors", "course.json", "manifest.json"

_NAME = re.compile(r"checkpoint-(\d+)")
_log = logging.getLogger("ratchet.trainer")


class TrainingState(FrozenModel):
    """Progress of a run: loss and gradient norm of each step so far. A norm that overflowed is
    None.
    """

    losses: tuple[float, ...] = ()
    norms: tuple[float | None, ...] = ()
    tokens: int = 0
    seconds: float = 0.0

    @property
    def steps(self) -> int:
        return len(self.losses)


@dataclass(frozen=True)
class OptimizerState:
    """The state that a step changes: trainable parameters by name in the optimizer's order, the
    optimizer and the gradient scaler.
    """

    parameters: Mapping[str, torch.nn.Parameter]
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler


class SavedState(FrozenModel):
    """Schema of `course.json`."""

    course: TrainingState
    scaler: dict[str, int | float]


class CheckpointManifest(FrozenModel):
    """Schema of `manifest.json`. Runs with equal training data and configuration have the same
    `run`.
    """

    run: str
    files: dict[str, Digest]


class Checkpoints:
    """The checkpoints of one run in a folder. Raises OSError if the disk rejects a write."""

    def __init__(self, folder: Path, run: str) -> None:
        self._folder = folder
        self._run = run

    def save(self, optimizer_state: OptimizerState, state: TrainingState) -> None:
        """Write the state after `state.steps` steps. Deletes all but the newest two checkpoints,
        and any that claim a later step.
        """
        saved = SavedState(course=state, scaler=optimizer_state.scaler.state_dict())
        files = {
            STATE: save(_tensors(optimizer_state)),
            PROGRESS: saved.model_dump_json().encode(),
        }
        manifest = CheckpointManifest(
            run=self._run, files={name: digest_of(data) for name, data in files.items()}
        )
        name = f"checkpoint-{state.steps}"
        partial = self._folder / f".{name}.part"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for file, data in (files | {MANIFEST: manifest.model_dump_json().encode()}).items():
            _write_durably(partial / file, data)
        _sync_folder(partial)
        reach_in_thread("trainer.child_saving")
        shutil.rmtree(self._folder / name, ignore_errors=True)
        partial.rename(self._folder / name)
        _sync_folder(self._folder)
        keep_steps = sorted(step for step in self._steps() if step <= state.steps)[-KEEP:]
        for step in self._steps():
            if step not in keep_steps:
                shutil.rmtree(self._folder / f"checkpoint-{step}")

    def resume(self, optimizer_state: OptimizerState) -> TrainingState:
        """Restore the newest valid checkpoint of this run, including the random number generators,
        and return its progress.

        Changes nothing and returns an empty state if there is no checkpoint. A damaged checkpoint
        is skipped for the previous one.
        """
        for step in sorted(self._steps(), reverse=True):
            folder = self._folder / f"checkpoint-{step}"
            try:
                manifest = CheckpointManifest.model_validate_json((folder / MANIFEST).read_bytes())
                if manifest.run != self._run:
                    continue
                saved = SavedState.model_validate_json(_read_verified(folder / PROGRESS, manifest))
                tensors = load(_read_verified(folder / STATE, manifest))
            except (OSError, ValueError, KeyError, DigestMismatch, SafetensorError) as error:
                _log.warning("%s is damaged and was skipped: %s", folder.name, error)
                continue
            _restore(optimizer_state, tensors)
            optimizer_state.scaler.load_state_dict(saved.scaler)
            return saved.course
        return TrainingState()

    def _steps(self) -> list[int]:
        paths = self._folder.iterdir() if self._folder.is_dir() else ()
        return [int(match[1]) for path in paths if (match := _NAME.fullmatch(path.name))]


def _tensors(optimizer_state: OptimizerState) -> dict[str, torch.Tensor]:
    """Collect all tensors of a state under descriptive names."""
    tensors = {
        f"parameter/{name}": parameter.detach()
        for name, parameter in optimizer_state.parameters.items()
    }
    for name, parameter in optimizer_state.parameters.items():
        tensors |= {
            f"optimizer/{key}/{name}": value
            for key, value in optimizer_state.optimizer.state[parameter].items()
        }
    tensors["generator/cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["generator/cuda"] = torch.cuda.get_rng_state()
    return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}


def _restore(optimizer_state: OptimizerState, tensors: Mapping[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in optimizer_state.parameters.items():
            parameter.copy_(tensors[f"parameter/{name}"])
    states: defaultdict[str, dict[str, torch.Tensor]] = defaultdict(dict)
    for key_path in tensors:
        if key_path.startswith("optimizer/"):
            _, key, name = key_path.split("/", 2)
            states[name][key] = tensors[key_path]
    state: dict[str, object] = optimizer_state.optimizer.state_dict()
    state["state"] = {
        number: states[name] for number, name in enumerate(optimizer_state.parameters)
    }
    optimizer_state.optimizer.load_state_dict(state)
    torch.set_rng_state(tensors["generator/cpu"])
    if torch.cuda.is_available() and "generator/cuda" in tensors:
        torch.cuda.set_rng_state(tensors["generator/cuda"])


def _read_verified(path: Path, manifest: CheckpointManifest) -> bytes:
    data = path.read_bytes()
    if (digest := digest_of(data)) != manifest.files[path.name]:
        raise DigestMismatch(path.name, manifest.files[path.name], digest)
    return data


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Sync a folder's directory entries to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
