"""Content of a new model's files, from the template. Pure but for reading the template."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import yaml

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
    }
    sets = {
        f"{model}/{name}.jsonl": (_TEMPLATE / f"{name}.jsonl").read_text(encoding="utf-8")
        for name in _SETS
    }
    return sets | {f"{model}.yaml": text.format(**values)}


def _yaml(value: object) -> str:
    """Return a value as YAML; a text that needs no quotes has none."""
    if isinstance(value, str) and _PLAIN.fullmatch(value) and yaml.safe_load(value) == value:
        return value
    return json.dumps(value)
