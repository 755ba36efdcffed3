"""Invalid fields of an event, named as in its JSON: the field, what was expected, what was found.

Values are not quoted, because they may be personal data; only a short name in the place of another
is.
"""

import re
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from shared.errors import ContractViolation

Path = tuple[str | int, ...]

MAX_ERRORS = 1000
"""Errors that are looked at; the rest is only counted."""

_EXPECTED = {
    "string_type": "a string",
    "tuple_type": "an array",
    "list_type": "an array",
    "model_type": "an object",
    "dict_type": "an object",
    "bool_type": "a boolean",
}
_QUOTABLE = re.compile(r"[A-Za-z_-]{1,20}")


def violation_of(error: ValidationError, data: dict[str, Any]) -> ContractViolation:
    """Return the first invalid field of `data`, and how many others there are.

    Where a field may be of several types, pydantic reports each of them. Those of the type that the
    value comes closest to are what it lacks.
    """
    found = error.errors(include_url=False)
    errors: dict[Path, list[ErrorDetails]] = {}
    for details in found[:MAX_ERRORS]:
        errors.setdefault(_path(details, data), []).append(details)
    # An error inside a value explains that value's own.
    around = {path[:length] for path in errors for length in range(len(path))}
    invalid = [path for path in errors if path not in around]
    first, more = invalid[0], len(invalid) - 1 + max(0, len(found) - MAX_ERRORS)
    reason = _reason(first, errors[first])
    return ContractViolation(
        reason + (f" (and {more} more)" if more else ""), ".".join(str(part) for part in first)
    )


def kind_of(data: object) -> str:
    """Return the JSON type of a value, with its article."""
    return {
        dict: "an object",
        list: "an array",
        str: "a string",
        type(None): "null",
        bool: "a boolean",
    }.get(type(data), "a number")


def name_or_kind(value: object) -> str:
    """Return a short name in quotes, and the JSON type of any other value."""
    quotable = isinstance(value, str) and _QUOTABLE.fullmatch(value)
    return repr(value) if quotable else kind_of(value)


def _path(details: ErrorDetails, data: Any) -> Path:
    """Return where an error is in the data, without pydantic's names of alternative types."""
    path: list[str | int] = []
    for part in details["loc"]:
        if isinstance(data, list) and isinstance(part, int):
            data = data[part] if part < len(data) else None
        elif isinstance(data, dict) and (part in data or not path or details["type"] == "missing"):
            data = data.get(part)
        else:
            continue
        path.append(part)
    return tuple(path)


def _reason(path: Path, errors: Sequence[ErrorDetails]) -> str:
    details = next((each for each in errors if each["type"] not in _EXPECTED), errors[0])
    found = details["input"]
    if details["type"] in _EXPECTED:
        expected = " or ".join(_EXPECTED[each["type"]] for each in errors)
        return f"expected {expected}, found {kind_of(found)}{_advice(path, found)}"
    if details["type"] == "literal_error":
        return f"expected {details['ctx']['expected']}, found {name_or_kind(found)}"
    return details["msg"]


def _advice(path: Path, found: Any) -> str:
    """Return what to send instead of what chat APIs allow in a message but feedback does not."""
    match path:
        case (_, int(), "content") if found is None:
            return "; send its text, or leave the message out"
    return ""
