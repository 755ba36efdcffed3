"""Checks of a run before its data are read: its lane, its hyperparameters, and its targets, which
are compared with the headers of the base's weight files.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from shared.config.model_file import ModelFile
from shared.config.training import TrainingConfig
from shared.errors import Misconfigured
from shared.events.hyperparameters import HyperparameterValue, Lane
from shared.storage.base_projections import (
    layer_counts,
    match_targets,
    projection_names,
    read_tensor_shapes,
)


def require_run(
    model_file: ModelFile,
    lane: Lane,
    hyperparameters: Mapping[str, HyperparameterValue],
    bases: Path,
) -> None:
    """Raise Misconfigured if a model file cannot train a lane with these hyperparameters."""
    if lane not in model_file.lanes:
        raise Misconfigured(
            f"the file of {model_file.model} declares no lane {lane!r}; add it under lanes"
        )
    training = model_file.lanes[lane].training.with_values(hyperparameters)
    require_targets(model_file, training, bases)


def require_targets(model_file: ModelFile, training: TrainingConfig, bases: Path) -> None:
    """Raise Misconfigured if the base lacks a target projection that the lane names. A base that is
    not in a folder on this machine is left to the trainer, which also chooses targets that are not
    named.
    """
    folder = bases / model_file.base.training
    if "targets" not in training.named or not folder.is_dir():
        return
    projections = [name for path in folder.glob("*.safetensors") for name in _projections(path)]
    matched = match_targets(projections, _model_type(folder), training.targets)
    absent = [target for target, names in matched.items() if not names]
    if projections and absent:
        present = sorted({name.rpartition(".")[2] for name in layer_counts(projections)})
        raise Misconfigured(
            f"targets of the lane {training.lane} of {model_file.model}: the base "
            f"{model_file.base.training} has no {', '.join(absent)}; it has {', '.join(present)}"
        )


def _projections(path: Path) -> list[str]:
    try:
        return projection_names(read_tensor_shapes(path))
    except (OSError, ValueError) as error:
        raise Misconfigured(f"{path} is not a readable safetensors file: {error}") from error


def _model_type(folder: Path) -> str:
    """Return the architecture of a base's language model; empty if it is unknown."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return str(config.get("text_config", config).get("model_type", ""))
    except (OSError, ValueError, AttributeError):
        return ""
