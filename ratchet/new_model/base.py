"""Check of a base model for a new model file."""

import json
from dataclasses import dataclass
from pathlib import Path

from shared.errors import Misconfigured


@dataclass(frozen=True, slots=True)
class NewBase:
    """Paths of a base as a model file has them."""

    training: str
    serving: str


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
        return NewBase(training, _existing(serving, bases))
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
    _require_json(folder / "config.json")
    return NewBase(training, _existing(serving, bases))


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


def _require_json(path: Path) -> None:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Misconfigured(f"{path} is not JSON: {error}") from error
