"""The format that a reward policy can demand of answers: JSON, a JSON Schema, a regular expression.

Patterns, those in a schema included, run on an engine whose time is linear in the text (no
look-around, no back-references), as the text comes from strangers. Schemas are never fetched: a
`$ref` has to stay within the schema.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from jsonschema_rs import RegexOptions, ValidationError, Validator, validator_for
from pydantic import JsonValue
from pydantic import ValidationError as Invalid
from pydantic_core import InitErrorDetails, PydanticCustomError, from_json

Schema = Mapping[str, JsonValue]


class FormatRequirements(Protocol):
    """What a policy says of the format."""

    @property
    def format(self) -> str | None: ...
    @property
    def json_schema(self) -> Schema | None: ...
    @property
    def pattern(self) -> str | None: ...


def format_check(requirements: FormatRequirements) -> Callable[[str], str | None]:
    """A function that says what is wrong with an answer's format, None when nothing is. Its words
    are the policy's, never the answer's.
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
    """`schema`, if it is one. Raises a validation error that names the place in it."""
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
    """`pattern`, if it is one. Raises ValueError."""
    try:
        _pattern_validator(pattern)
    except ValidationError as error:
        raise ValueError(
            "not a regular expression of the kind that takes linear time (no look-around, no "
            "back-references)"
        ) from error
    return pattern


def _schema_validator(schema: Schema) -> Validator:
    return validator_for(dict(schema), pattern_options=RegexOptions(), offline=True)


def _pattern_validator(pattern: str) -> Validator:
    return _schema_validator({"type": "string", "pattern": pattern})
