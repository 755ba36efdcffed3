"""Check of a base model for a new model file."""

import json
from dataclasses import dataclass
from pathlib import Path

from shared.errors import Misconfigured


@dataclass(frozen=True, slots=True)
class NewBase:
    """Paths of a base as a model file has them. `layers` is its number of decoder layers, None if
    the base is not on this machine.
    """

    training: str
    serving: str
    layers: int | None


def check_base(training: str, serving: str | None, bases: Path) -> NewBase:
    """Check the folder and the GGUF file of a base. `serving` defaults to the only GGUF file in the
    folder. A hub id, which names no folder, is taken as it is. Raises Misconfigured.
    """
    folder = bases / training
    if not folder.is_dir():
        if serving is None or "/" not in training:
            raise Misconfigured(
                f"{folder} is no folder; name a folder below {bases} in transformers format, or a "
                "hub id with --serving FILE.gguf"
            )
        return NewBase(training, _existing(serving, bases), None)
    if missing := _missing_files(folder):
        raise Misconfigured(f"{folder} is no base in transformers format: it has no {missing}")
    if serving is None:
        files = sorted(folder.glob("*.gguf"))
        if len(files) != 1:
            raise Misconfigured(
                f"{folder} has {len(files) or 'no'} GGUF files; name the one of the same weights "
                "with --serving, or make it with llama.cpp's convert_hf_to_gguf.py"
            )
        serving = f"{training}/{files[0].name}"
    return NewBase(training, _existing(serving, bases), _layers(folder))


def _existing(serving: str, bases: Path) -> str:
    if not (bases / serving).is_file():
        raise Misconfigured(f"{bases / serving} is no file; --serving is relative to {bases}")
    return serving


def _missing_files(folder: Path) -> str:
    """Name what a folder in transformers format lacks; empty if it is complete."""
    needed = {
        "config.json": "config.json",
        "tokenizer*.json": "tokenizer (tokenizer.json)",
        "*.safetensors": "weights (*.safetensors)",
    }
    return " and no ".join(name for glob, name in needed.items() if not any(folder.glob(glob)))


def _layers(folder: Path) -> int | None:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise Misconfigured(f"{folder / 'config.json'} is not JSON: {error}") from error
    layers = config.get("num_hidden_layers") if isinstance(config, dict) else None
    return layers if isinstance(layers, int) else None
