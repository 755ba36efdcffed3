"""Check of a lane's target projections against the base, from the headers of its weight files."""

import json
from collections.abc import Iterator
from pathlib import Path

from shared.config.model_file import ModelFile
from shared.config.training import TrainingConfig
from shared.errors import Misconfigured

_MAX_HEADER_BYTES = 100 << 20
"""Limit of a header in the safetensors format."""


def require_targets(model_file: ModelFile, training: TrainingConfig, bases: Path) -> None:
    """Raise Misconfigured if the base lacks a target projection. A base that is not in a folder on
    this machine is left to the trainer.
    """
    folder = bases / model_file.base.training
    if not folder.is_dir():
        return
    projections = {name for path in folder.glob("*.safetensors") for name in _projections(path)}
    absent = [name for name in training.targets if name not in projections]
    if projections and absent:
        raise Misconfigured(
            f"targets of the lane {training.lane} of {model_file.model}: the base "
            f"{model_file.base.training} has no {', '.join(absent)}; it has "
            f"{', '.join(sorted(projections))}"
        )


def _projections(path: Path) -> Iterator[str]:
    """Yield the names of the projections in a file's decoder layers, such as `q_proj`."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if size > _MAX_HEADER_BYTES:
                raise ValueError("its header is too long")
            header = json.loads(file.read(size))
        tensors = {name: entry["shape"] for name, entry in header.items() if "shape" in entry}
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise Misconfigured(f"{path} is not a readable safetensors file: {error}") from error
    for name, shape in tensors.items():
        parts = name.split(".")
        if parts[-1] == "weight" and len(shape) == 2 and any(part.isdigit() for part in parts):
            yield parts[-2]
