"""Markdown page of the model file: every key with its values, default and meaning. Pure."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from shared.config.model_file import ModelFile
from shared.config.training import LANE_DEFAULTS

Schema = Mapping[str, Any]

_HEAD = """\
# Model file

Look up every key of `models/<name>.yaml`. `make contracts` writes this page from
[`shared/config`](../shared/config). `ratchet models check` validates a file and names file, line,
key and expected values; `ratchet new` writes a first one. Paths of sets are relative to the folder
of the model file.

The hyperparameters of a lane have ranges and defaults of their own: the page
[training](training.md#lanes) lists them. The defaults below are those of the lane `adaptive`;
`ratchet models check` prints the values that apply to your base and machine.
"""

_TRAINING = "lanes.<name>.training."
_CHOSEN = {
    "layers": "a third of the base's",
    "learning_rate": "by the size of the base",
    "batch_size": "`5`, or fewer if the memory requires it",
    "gradient_checkpointing": "on if the memory requires it",
}
"""Defaults of the lane `adaptive` that depend on the base and the device."""

_BOUNDS = (
    ("minimum", "at least"),
    ("exclusiveMinimum", "above"),
    ("maximum", "at most"),
    ("exclusiveMaximum", "below"),
    ("maxItems", "number of items at most"),
)

_KINDS = {"array": "list", "object": "keys by name", "boolean": "`true` or `false`"}


def model_file_page() -> str:
    """Return the page, with one section for each part of the file, in the order of the file."""
    schema = ModelFile.model_json_schema()
    definitions: Schema = schema["$defs"]
    return "\n".join([_HEAD, *_sections("", schema, definitions)])


def _sections(prefix: str, schema: Schema, definitions: Schema) -> Iterator[str]:
    """Yield the section of one part, then those of the parts that it contains."""
    title = f"`{prefix.rstrip('.')}`" if prefix else "The file"
    rows = [
        _row(prefix + name, field, name in schema.get("required", ()), definitions)
        for name, field in schema["properties"].items()
    ]
    heads = "| key | values | default | |\n|---|---|---|---|"
    yield "\n".join([f"## {title}", "", heads, *rows, ""])
    for name, field in schema["properties"].items():
        suffix, part = _part_of(field, definitions)
        if part is not None:
            yield from _sections(f"{prefix}{name}{suffix}.", part, definitions)


def _row(key: str, field: Schema, required: bool, definitions: Schema) -> str:
    if key.startswith(_TRAINING):
        default = _training_default(key.removeprefix(_TRAINING), field, definitions)
    else:
        default = "required" if required else _default(field, definitions)
    cells = (f"`{key}`", _values(field, definitions), default, field["description"])
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default(field: Schema, definitions: Schema) -> str:
    value = field.get("default")
    if value is None or value in ((), [], {}):
        return ""
    if _part_of(field, definitions)[1] is not None:
        return "see below"
    return f"`{json.dumps(value)}`"


def _training_default(name: str, field: Schema, definitions: Schema) -> str:
    changed = {"default": LANE_DEFAULTS["adaptive"].get(name, field.get("default"))}
    return _CHOSEN.get(name) or _default({**field, **changed}, definitions)


def _part_of(field: Schema, definitions: Schema) -> tuple[str, Schema | None]:
    """Return the schema of the object that a key has, and the suffix for its keys: `[]` for a list,
    `.<name>` for a mapping by name. None for other values.
    """
    for option in field.get("anyOf", (field,)):
        if "$ref" in option:
            part: Schema = definitions[option["$ref"].rpartition("/")[2]]
            return ("", part) if "properties" in part else ("", None)
        if "items" in option and "$ref" in option["items"]:
            return "[]", _part_of(option["items"], definitions)[1]
        if isinstance(option.get("additionalProperties"), Mapping):
            suffix, part_of_value = _part_of(option["additionalProperties"], definitions)
            return f".<name>{suffix}", part_of_value
    return "", None


def _values(field: Schema, definitions: Schema) -> str:
    options = [option for option in field.get("anyOf", (field,)) if option.get("type") != "null"]
    return " or ".join(_value(option, definitions) for option in options)


def _value(option: Schema, definitions: Schema) -> str:
    if "enum" in option:
        return ", ".join(f"`{value}`" for value in option["enum"])
    if "const" in option:
        return f"`{option['const']}`"
    if "$ref" in option:
        part = definitions[option["$ref"].rpartition("/")[2]]
        return "keys" if "properties" in part else _value(part, definitions)
    bounds = ", ".join(f"{word} {option[key]:g}" for key, word in _BOUNDS if key in option)
    kind: str = option.get("type", "any value")
    name = _KINDS.get(kind, kind)
    return f"{name}, {bounds}" if bounds else name
