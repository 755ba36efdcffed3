"""Every kind of incompatible schema change is named; compatible changes are accepted."""

from typing import Any, Literal, cast

import pytest
from pydantic import BaseModel, ConfigDict, Field, create_model

from ratchet.contracts.compatibility import incompatibilities, same_constraints

Fields = dict[str, Any]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")

    size: int
    colour: str = "red"


class LargerPart(Part):
    weight: float


class LooserPart(BaseModel):
    model_config = ConfigDict(extra="forbid")

    size: int | None = None
    colour: str = "red"


FIELDS: Fields = {
    "name": (str, Field(max_length=10)),
    "count": (int, Field(ge=0)),
    "kind": (Literal["a", "b"], ...),
    "part": (Part, ...),
    "parts": (tuple[Part, ...], ()),
    "tags": (dict[str, str] | None, None),
    "code": (str, Field(default="x", pattern="^[a-z]$")),
    "input": (str | tuple[Part, ...], "hi"),
}


def schema(
    fields: Fields, extra: Literal["ignore", "forbid"] = "forbid", **more: Any
) -> dict[str, Any]:
    model: type[BaseModel] = create_model(
        "Event", __config__=cast(ConfigDict, {"extra": extra, **more}), **fields
    )
    return model.model_json_schema()


def without(name: str) -> Fields:
    return {field_name: field for field_name, field in FIELDS.items() if field_name != name}


BREAKING_CHANGES = [
    ("a field goes away", without("name"), "name: was removed"),
    (
        "a field in a part goes away",
        FIELDS | {"part": (create_model("Part", size=(int, ...)), ...)},
        "part.colour: was removed",
    ),
    ("a field gets another type", FIELDS | {"name": (int, ...)}, "name: was string, is integer"),
    (
        "a number may be whole only",
        FIELDS | {"count": (bool, ...)},
        "count: was integer, is boolean",
    ),
    ("a new field is required", FIELDS | {"since": (str, ...)}, "since: became required"),
    (
        "a field that could be left out is required",
        FIELDS | {"code": (str, Field(pattern="^[a-z]$"))},
        "code: became required",
    ),
    (
        "a new field in a part is required",
        FIELDS | {"part": (LargerPart, ...)},
        "part.weight: became required",
    ),
    (
        "a new field in a list is required",
        FIELDS | {"parts": (tuple[LargerPart, ...], ())},
        "parts[].weight: became required",
    ),
    (
        "an enumeration shrinks",
        FIELDS | {"kind": (Literal["a"], ...)},
        "kind: no longer accepts b",
    ),
    (
        "a string becomes an enumeration",
        FIELDS | {"name": (Literal["a", "b"], ...)},
        "name: accepts only certain values",
    ),
    (
        "a lower bound rises",
        FIELDS | {"count": (int, Field(ge=1))},
        "count: minimum was raised to 1",
    ),
    (
        "an upper bound comes",
        FIELDS | {"count": (int, Field(ge=0, le=9))},
        "count: maximum was lowered to 9",
    ),
    (
        "a text may be less long",
        FIELDS | {"name": (str, Field(max_length=9))},
        "name: maxLength was lowered to 9",
    ),
    (
        "a list must not be empty",
        FIELDS | {"parts": (tuple[Part, ...], Field(default=(), min_length=1))},
        "parts: minItems was raised to 1",
    ),
    (
        "a pattern changes",
        FIELDS | {"code": (str, Field(default="x", pattern="^[a-f]$"))},
        "code: pattern has changed",
    ),
    ("null is refused", FIELDS | {"tags": (dict[str, str], {})}, "tags: was null, is object"),
    (
        "values of a map get another type",
        FIELDS | {"tags": (dict[str, int] | None, None)},
        "tags: object is no longer accepted as before",
    ),
    ("one of several forms goes", FIELDS | {"input": (str, "hi")}, "input: was array, is string"),
    (
        "a default changes",
        FIELDS | {"code": (str, Field(default="y", pattern="^[a-z]$"))},
        "code: the default 'x' has changed",
    ),
]

BREAKING_ONLY_FOR_RATCHET = [
    (
        "a field may be left out",
        FIELDS | {"kind": (Literal["a", "b"], "a")},
        "kind: may now be absent",
    ),
    (
        "a field in a part may be",
        FIELDS | {"part": (LooserPart, ...)},
        "part.size: may now be absent",
    ),
    ("a field may be null", FIELDS | {"name": (str | None, ...)}, "name: may now be null"),
    (
        "a field may have another type besides",
        FIELDS | {"count": (int | str, ...)},
        "count: may now be string",
    ),
    (
        "a whole number need not be whole",
        FIELDS | {"count": (float, ...)},
        "count: may now be number",
    ),
]


@pytest.mark.parametrize(
    ("change", "fields", "expected"),
    BREAKING_CHANGES,
    ids=[change for change, _, _ in BREAKING_CHANGES],
)
@pytest.mark.parametrize("external", [True, False])
def test_old_events_stay_readable(
    change: str, fields: Fields, expected: str, external: bool
) -> None:
    assert expected in incompatibilities(schema(FIELDS), schema(fields), external=external), change


@pytest.mark.parametrize(
    ("change", "fields", "expected"),
    BREAKING_ONLY_FOR_RATCHET,
    ids=[change for change, _, _ in BREAKING_ONLY_FOR_RATCHET],
)
def test_readers_keep_working(change: str, fields: Fields, expected: str) -> None:
    assert expected in incompatibilities(schema(FIELDS), schema(fields), external=False), change
    assert incompatibilities(schema(FIELDS), schema(fields), external=True) == [], (
        "all readers of the event are Ratchet's own"
    )


def test_ignored_fields_must_not_be_refused_later() -> None:
    breaks = incompatibilities(schema(FIELDS, "ignore"), schema(FIELDS), external=True)
    assert breaks == ["the event: refuses unknown fields, which were accepted"]
    assert incompatibilities(schema(FIELDS), schema(FIELDS, "ignore"), external=True) == []


def test_a_new_or_changed_condition_is_a_break() -> None:
    condition = {"if": {"required": ["tags"]}, "then": {"required": ["code"]}}
    breaks = incompatibilities(
        schema(FIELDS), schema(FIELDS, json_schema_extra=condition), external=True
    )
    assert breaks == [
        "the event: if has changed",
        "the event: then has changed",
    ]


def test_new_fields_values_and_wider_bounds_are_compatible() -> None:
    wider = FIELDS | {
        "name": (str, Field(max_length=20)),
        "kind": (Literal["a", "b", "c"], ...),
        "since": (str | None, None),
        "part": (create_model("Part", __base__=Part, weight=(float, 1.0)), ...),
    }
    for external in (True, False):
        assert incompatibilities(schema(FIELDS), schema(wider), external=external) == []
    assert not same_constraints(schema(FIELDS), schema(wider))


def test_descriptions_do_not_change_a_schema() -> None:
    described = FIELDS | {"count": (int, Field(ge=0, description="how many"))}
    assert same_constraints(schema(FIELDS), schema(described))
    assert not same_constraints(schema(FIELDS), schema(FIELDS | {"count": (int, Field(ge=1))}))
    titled = {"title": (str, "x"), "description": (str, "y")}
    assert not same_constraints(schema(FIELDS | titled), schema(FIELDS)), (
        "a field may have the name of a schema keyword"
    )
