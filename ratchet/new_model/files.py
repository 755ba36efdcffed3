"""Content of a new model's files, from the template. Pure but for reading the template."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import yaml

from ratchet.local_stack.bases import SMOLLM2
from ratchet.new_model.base import NewBase

_TEMPLATE = Path(__file__).parent / "template"
_PLAIN = re.compile(r"[A-Za-z0-9./_-]+")
_SETS = ("golden", "regression_set", "regression_prompts", "rehearsal")


def new_files(model: str, base: NewBase, trusted_users: Sequence[str]) -> dict[str, str]:
    """Return the files of a new model, by path below the folder of model files: its sets first, so
    that the model file never names a missing one.
    """
    text = (_TEMPLATE / "model.yaml").read_text(encoding="utf-8")
    values = {
        "name": model,
        "model": _yaml(model),
        "training": _yaml(base.training),
        "serving": _yaml(base.serving),
        "trusted_users": _yaml(list(trusted_users)),
        "training_settings": "\n".join(_training_settings(base)),
    }
    sets = {
        f"{model}/{name}.jsonl": (_TEMPLATE / f"{name}.jsonl").read_text(encoding="utf-8")
        for name in _SETS
    }
    return sets | {f"{model}.yaml": text.format(**values)}


def _training_settings(base: NewBase) -> list[str]:
    """Return the settings that depend on the base, as lines."""
    lines = []
    if base.layers is not None and base.layers >= 3:
        layers = base.layers // 3
        lines.append(
            f"      layers: {layers} # the last of {base.layers}: cheaper, and less is forgotten"
        )
    rate = "3.0e-3" if base.training == SMOLLM2 else "1.0e-3"
    return [*lines, f"      learning_rate: {rate} # the larger the base, the lower"]


def _yaml(value: object) -> str:
    """Return a value as YAML; a text that needs no quotes has none."""
    if isinstance(value, str) and _PLAIN.fullmatch(value) and yaml.safe_load(value) == value:
        return value
    return json.dumps(value)
