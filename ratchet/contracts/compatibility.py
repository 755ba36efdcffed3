"""Backward compatibility of JSON Schemas. Pure, and conservative: what cannot be shown to be
compatible is a break.

Two promises:

- *Old events stay readable*: an event that fits the earlier schema fits the later one. So no field
  is removed or changes its type, no field becomes required, no bound becomes tighter, no default
  changes, and an enumeration only grows.
- *Readers keep working*, for events that Ratchet writes: a field that was always present stays so,
  with the same types. New fields and new values of an enumeration are allowed; consumers are
  upgraded before producers, and third-party readers ignore unknown fields.
"""

from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

_WORDS = frozenset({"$schema", "$id", "title", "description", "examples"})
_NOTES = _WORDS | {"$defs", "default"}
_LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems")
_UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems")
_KNOWN = frozenset(
    {
        "type",
        "enum",
        "const",
        "anyOf",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "pattern",
        "format",
        *_LOWER,
        *_UPPER,
    }
)


def incompatibilities(earlier: Schema, later: Schema, *, external: bool) -> list[str]:
    """Return where `later` breaks a promise of `earlier`, as path and problem; empty when
    compatible.

    Only the first promise applies to an `external` event, which applications write and Ratchet
    alone reads.
    """
    problems = [*_narrower(_SchemaView(earlier), _SchemaView(later), "")]
    if not external:
        problems += [*_poorer(_SchemaView(earlier), _SchemaView(later), "")]
    return problems


def same_constraints(earlier: Schema, later: Schema) -> bool:
    """Return whether two schemas are equal apart from titles and descriptions."""
    return bool(_without_words(earlier) == _without_words(later))


def _without_words(part: Any) -> Any:
    if isinstance(part, Mapping):
        named = {
            name: {key: _without_words(value) for key, value in part[name].items()}
            for name in ("properties", "$defs")
            if name in part
        }
        return {
            name: _without_words(value) for name, value in part.items() if name not in _WORDS
        } | named
    return [_without_words(item) for item in part] if isinstance(part, list) else part


class _SchemaView:
    """A part of a schema, with its reference resolved and the definitions that it may refer to."""

    def __init__(self, part: Any, definitions: Mapping[str, Any] | None = None) -> None:
        self._definitions: Mapping[str, Any] = (
            part.get("$defs", {}) if definitions is None else definitions
        )
        while isinstance(part, Mapping) and "$ref" in part:
            part = self._definitions[part["$ref"].removeprefix("#/$defs/")]
        self.keywords: Mapping[str, Any] = (
            {}
            if part is True
            else {name: value for name, value in part.items() if name not in _NOTES}
        )

    def of(self, part: Any) -> "_SchemaView":
        return _SchemaView(part, self._definitions)

    @property
    def alternatives(self) -> list["_SchemaView"]:
        return (
            [self.of(part) for part in self.keywords["anyOf"]]
            if "anyOf" in self.keywords
            else [self]
        )

    @property
    def type(self) -> str | None:
        return self.keywords.get("type")

    @property
    def values(self) -> list[Any] | None:
        return [self.keywords["const"]] if "const" in self.keywords else self.keywords.get("enum")

    @property
    def defaults(self) -> dict[str, Any]:
        return {
            name: part["default"]
            for name, part in self.keywords.get("properties", {}).items()
            if "default" in part
        }

    @property
    def fields(self) -> dict[str, "_SchemaView"]:
        return {name: self.of(part) for name, part in self.keywords.get("properties", {}).items()}

    @property
    def required(self) -> set[str]:
        return set(self.keywords.get("required", ()))

    @property
    def additional(self) -> Any:
        """Schema of additional properties: False for none, True for anything, or a schema."""
        return self.keywords.get("additionalProperties", True)


def _narrower(earlier: _SchemaView, later: _SchemaView, path: str) -> Iterator[str]:
    """Yield where data that fits `earlier` may not fit `later`."""
    if "anyOf" in earlier.keywords or "anyOf" in later.keywords:
        for before in earlier.alternatives:
            tried = [[*_narrower(before, now, path)] for now in later.alternatives]
            if all(tried):
                yield from (
                    min(tried, key=len)
                    if len(tried) == 1
                    else [_at(path, f"{before.type} is no longer accepted as before")]
                )
        return
    if (
        later.type is not None
        and later.type != earlier.type
        and (earlier.type, later.type) != ("integer", "number")
    ):
        yield _at(path, f"was {earlier.type or 'anything'}, is {later.type}")
        return
    if later.values is not None:
        removed = [value for value in earlier.values or () if value not in later.values]
        if earlier.values is None:
            yield _at(path, "accepts only certain values")
        elif removed:
            yield _at(path, f"no longer accepts {', '.join(map(str, removed))}")
    for name in _LOWER:
        if name in later.keywords and later.keywords[name] > earlier.keywords.get(
            name, float("-inf")
        ):
            yield _at(path, f"{name} was raised to {later.keywords[name]}")
    for name in _UPPER:
        if name in later.keywords and later.keywords[name] < earlier.keywords.get(
            name, float("inf")
        ):
            yield _at(path, f"{name} was lowered to {later.keywords[name]}")
    for name in sorted(
        later.keywords.keys() - _KNOWN | ({"pattern", "format"} & later.keywords.keys())
    ):
        if later.keywords[name] != earlier.keywords.get(name):
            yield _at(path, f"{name} has changed")
    if "items" in later.keywords:
        yield from _narrower(
            earlier.of(earlier.keywords.get("items", True)),
            later.of(later.keywords["items"]),
            f"{path}[]",
        )
    yield from _narrower_fields(earlier, later, path)


def _narrower_fields(earlier: _SchemaView, later: _SchemaView, path: str) -> Iterator[str]:
    for name in sorted(later.required - earlier.required):
        yield _at(_join(path, name), "became required")
    for name, before in earlier.fields.items():
        if name in later.fields:
            yield from _narrower(before, later.fields[name], _join(path, name))
        else:
            yield _at(_join(path, name), "was removed")
    for name, default in earlier.defaults.items():
        if name in later.fields and later.defaults.get(name) != default:
            yield _at(_join(path, name), f"the default {default!r} has changed")
    if later.additional is False and earlier.additional is not False:
        yield _at(path, "refuses unknown fields, which were accepted")
    elif isinstance(later.additional, Mapping) and earlier.additional is not False:
        yield from _narrower(
            earlier.of(earlier.additional), later.of(later.additional), f"{path}{{}}"
        )


def _poorer(earlier: _SchemaView, later: _SchemaView, path: str) -> Iterator[str]:
    """Yield where a reader of `earlier` may miss a field or find another type in data that fits
    `later`.
    """
    new_types = {now.type for now in later.alternatives} - {
        before.type for before in earlier.alternatives
    }
    if new_types and None not in {before.type for before in earlier.alternatives}:
        yield _at(path, f"may now be {' or '.join(sorted(map(str, new_types)))}")
    for now in later.alternatives:
        for before in earlier.alternatives:
            if before.type != now.type:
                continue
            for name in sorted(before.required - now.required):
                yield _at(_join(path, name), "may now be absent")
            for name in before.fields.keys() & now.fields.keys():
                yield from _poorer(before.fields[name], now.fields[name], _join(path, name))
            if "items" in before.keywords and "items" in now.keywords:
                yield from _poorer(
                    before.of(before.keywords["items"]), now.of(now.keywords["items"]), f"{path}[]"
                )


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _at(path: str, problem: str) -> str:
    return f"{path or 'the event'}: {problem}"
