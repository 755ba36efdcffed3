"""Answer formats that a reward policy can require: JSON, a JSON Schema, a regular expression.

Patterns, including those in a schema, run on an engine with linear time (no look-around, no
backreferences), because the text is untrusted. Schemas are never fetched: a `$ref` has to stay
within the schema.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from jsonschema_rs import RegexOptions, ValidationError, Validator, validator_for
from pydantic import JsonValue
from pydantic import ValidationError as Invalid
from pydantic_core import InitErrorDetails, PydanticCustomError, from_json

Schema = Mapping[str, JsonValue]


class FormatRequirements(Protocol):
    """The format requirements of a reward policy."""

    @property
    def format(self) -> str | None: ...
    @property
    def json_schema(self) -> Schema | None: ...
    @property
    def pattern(self) -> str | None: ...


def format_check(requirements: FormatRequirements) -> Callable[[str], str | None]:
    """Return a function that maps an answer to its format error, or None for a valid answer.

    The error quotes the policy, never the answer.
    """
    pattern = requirements.pattern and _pattern_validator(requirements.pattern)
    schema = requirements.json_schema and _schema_validator(requirements.json_schema)
    is_json = requirements.format == "json" or requirements.json_schema is not None

    def fault(answer: str) -> str | None:
        if pattern and not pattern.is_valid(answer):
            return "does not match the policy's pattern"
        if not is_json:
            return None
        try:
            value = from_json(answer, allow_inf_nan=False)
        except ValueError:
            return "is not JSON"
        if requirements.format == "json" and not isinstance(value, dict):
            return "is not a JSON object"
        error = next(schema.iter_errors(value), None) if schema else None
        return (
            f"breaks {'.'.join(map(str, error.schema_path))} of the policy's json_schema"
            if error
            else None
        )

    return fault


def checked_schema(schema: Schema) -> Schema:
    """Return `schema` if it is a valid JSON Schema.

    Raises a validation error that names the location in the schema.
    """
    try:
        _schema_validator(schema)
    except ValidationError as error:
        problem = PydanticCustomError("json_schema", "{problem}", {"problem": error.message})
        raise Invalid.from_exception_data(
            "json_schema",
            [InitErrorDetails(type=problem, loc=tuple(error.instance_path), input=schema)],
        ) from error
    return schema


def checked_pattern(pattern: str) -> str:
    """Return `pattern` if it is a valid regular expression. Raises ValueError."""
    try:
        _pattern_validator(pattern)
    except ValidationError as error:
        raise ValueError(
            "not a regular expression with linear running time (look-around and backreferences "
            "are not supported)"
        ) from error
    return pattern


def _schema_validator(schema: Schema) -> Validator:
    return validator_for(dict(schema), pattern_options=RegexOptions(), offline=True)


def _pattern_validator(pattern: str) -> Validator:
    return _schema_validator({"type": "string", "pattern": pattern})
