"""The state of a run on disk, whole or not there at all: folders `checkpoint-<step>`, the newest
two.

    state.safetensors   the trainable parameters, the optimizer's state of each, and the state of the random number generators
    course.json         how far the run is, and the state of the gradient scaler
    manifest.json       which run it is of, and the digests of the other two

A folder is written under another name, brought to the disk, and renamed. Nothing in it is code: no
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
STATE, COURSE, MANIFEST = "state.safetensors", "course.json", "manifest.json"

_NAME = re.compile(r"checkpoint-(\d+)")
_log = logging.getLogger("ratchet.trainer")


class TrainingState(FrozenModel):
    """How far a run is. Losses and gradient norms are those of each step so far; a norm that
    overflowed is None.
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
    """What a step changes: the trainable parameters by name, in the optimizer's order, the
    optimizer and the gradient scaler.
    """

    parameters: Mapping[str, torch.nn.Parameter]
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler


class SavedState(FrozenModel):
    """`course.json`."""

    course: TrainingState
    scaler: dict[str, int | float]


class CheckpointManifest(FrozenModel):
    """`manifest.json`. `run` is the same for runs that would learn the same."""

    run: str
    files: dict[str, Digest]


class Checkpoints:
    """The checkpoints of one run in a folder. Raises OSError when the disk does not take one."""

    def __init__(self, folder: Path, run: str) -> None:
        self._folder = folder
        self._run = run

    def save(self, optimizer_state: OptimizerState, state: TrainingState) -> None:
        """Write the state after `course.steps` steps; older ones than the newest two are gone then,
        and all that claim to be newer.
        """
        recorded = SavedState(course=state, scaler=optimizer_state.scaler.state_dict())
        files = {
            STATE: save(_tensors(optimizer_state)),
            COURSE: recorded.model_dump_json().encode(),
        }
        manifest = CheckpointManifest(
            run=self._run, files={name: digest_of(data) for name, data in files.items()}
        )
        name = f"checkpoint-{state.steps}"
        part = self._folder / f".{name}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for file, data in (files | {MANIFEST: manifest.model_dump_json().encode()}).items():
            _write_durably(part / file, data)
        _sync_folder(part)
        reach_in_thread("trainer.child_saving")
        shutil.rmtree(self._folder / name, ignore_errors=True)
        part.rename(self._folder / name)
        _sync_folder(self._folder)
        kept = sorted(step for step in self._steps() if step <= state.steps)[-KEEP:]
        for step in self._steps():
            if step not in kept:
                shutil.rmtree(self._folder / f"checkpoint-{step}")

    def resume(self, optimizer_state: OptimizerState) -> TrainingState:
        """Put the learner, and the random number generators, in the state of the newest whole
        checkpoint of this run, and say how far that is. Changes nothing and says so where there is
        none; one that is damaged is passed over for the one before.
        """
        for step in sorted(self._steps(), reverse=True):
            folder = self._folder / f"checkpoint-{step}"
            try:
                manifest = CheckpointManifest.model_validate_json((folder / MANIFEST).read_bytes())
                if manifest.run != self._run:
                    continue
                recorded = SavedState.model_validate_json(_read_verified(folder / COURSE, manifest))
                tensors = load(_read_verified(folder / STATE, manifest))
            except (OSError, ValueError, KeyError, DigestMismatch, SafetensorError) as error:
                _log.warning("%s is damaged and passed over: %s", folder.name, error)
                continue
            _restore(optimizer_state, tensors)
            optimizer_state.scaler.load_state_dict(recorded.scaler)
            return recorded.course
        return TrainingState()

    def _steps(self) -> list[int]:
        found = self._folder.iterdir() if self._folder.is_dir() else ()
        return [int(match[1]) for path in found if (match := _NAME.fullmatch(path.name))]


def _tensors(optimizer_state: OptimizerState) -> dict[str, torch.Tensor]:
    """All tensors of a state, under names that say what they are."""
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
    for place in tensors:
        if place.startswith("optimizer/"):
            _, key, name = place.split("/", 2)
            states[name][key] = tensors[place]
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
    if (found := digest_of(data)) != manifest.files[path.name]:
        raise DigestMismatch(path.name, manifest.files[path.name], found)
    return data


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Bring a folder's list of names to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
