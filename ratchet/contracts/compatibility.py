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
    found = [*_narrower(_SchemaView(earlier), _SchemaView(later), "")]
    if not external:
        found += [*_poorer(_SchemaView(earlier), _SchemaView(later), "")]
    return found


def same_constraints(earlier: Schema, later: Schema) -> bool:
    """Return whether two schemas are equal apart from titles and descriptions."""
    return bool(_without_words(earlier) == _without_words(later))


def _without_words(part: Any) -> Any:
    if isinstance(part, Mapping):
        named = {
            name: {one: _without_words(said) for one, said in part[name].items()}
            for name in ("properties", "$defs")
            if name in part
        }
        return {
            name: _without_words(said) for name, said in part.items() if name not in _WORDS
        } | named
    return [_without_words(one) for one in part] if isinstance(part, list) else part


class _SchemaView:
    """A part of a schema, with its reference resolved and the definitions that it may refer to."""

    def __init__(self, part: Any, definitions: Mapping[str, Any] | None = None) -> None:
        self._definitions: Mapping[str, Any] = (
            part.get("$defs", {}) if definitions is None else definitions
        )
        while isinstance(part, Mapping) and "$ref" in part:
            part = self._definitions[part["$ref"].removeprefix("#/$defs/")]
        self.said: Mapping[str, Any] = (
            {}
            if part is True
            else {name: said for name, said in part.items() if name not in _NOTES}
        )

    def of(self, part: Any) -> "_SchemaView":
        return _SchemaView(part, self._definitions)

    @property
    def alternatives(self) -> list["_SchemaView"]:
        return [self.of(part) for part in self.said["anyOf"]] if "anyOf" in self.said else [self]

    @property
    def type(self) -> str | None:
        return self.said.get("type")

    @property
    def values(self) -> list[Any] | None:
        return [self.said["const"]] if "const" in self.said else self.said.get("enum")

    @property
    def defaults(self) -> dict[str, Any]:
        return {
            name: part["default"]
            for name, part in self.said.get("properties", {}).items()
            if "default" in part
        }

    @property
    def fields(self) -> dict[str, "_SchemaView"]:
        return {name: self.of(part) for name, part in self.said.get("properties", {}).items()}

    @property
    def required(self) -> set[str]:
        return set(self.said.get("required", ()))

    @property
    def others(self) -> Any:
        """Schema of additional properties: False for none, True for anything, or a schema."""
        return self.said.get("additionalProperties", True)


def _narrower(earlier: _SchemaView, later: _SchemaView, path: str) -> Iterator[str]:
    """Where something that fitted `earlier` may not fit `later`."""
    if "anyOf" in earlier.said or "anyOf" in later.said:
        for before in earlier.alternatives:
            tried = [[*_narrower(before, now, path)] for now in later.alternatives]
            if all(tried):
                yield from (
                    min(tried, key=len)
                    if len(tried) == 1
                    else [_at(path, f"{before.type} is accepted no more as it was")]
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
        gone = [value for value in earlier.values or () if value not in later.values]
        if earlier.values is None:
            yield _at(path, "takes only certain values now")
        elif gone:
            yield _at(path, f"does not take {', '.join(map(str, gone))} any more")
    for name in _LOWER:
        if name in later.said and later.said[name] > earlier.said.get(name, float("-inf")):
            yield _at(path, f"{name} has risen to {later.said[name]}")
    for name in _UPPER:
        if name in later.said and later.said[name] < earlier.said.get(name, float("inf")):
            yield _at(path, f"{name} has sunk to {later.said[name]}")
    for name in sorted(later.said.keys() - _KNOWN | ({"pattern", "format"} & later.said.keys())):
        if later.said[name] != earlier.said.get(name):
            yield _at(path, f"{name} is another than before")
    if "items" in later.said:
        yield from _narrower(
            earlier.of(earlier.said.get("items", True)), later.of(later.said["items"]), f"{path}[]"
        )
    yield from _narrower_fields(earlier, later, path)


def _narrower_fields(earlier: _SchemaView, later: _SchemaView, path: str) -> Iterator[str]:
    for name in sorted(later.required - earlier.required):
        yield _at(_join(path, name), "is required now")
    for name, before in earlier.fields.items():
        if name in later.fields:
            yield from _narrower(before, later.fields[name], _join(path, name))
        else:
            yield _at(_join(path, name), "is gone")
    for name, default in earlier.defaults.items():
        if name in later.fields and later.defaults.get(name) != default:
            yield _at(_join(path, name), f"left out meant {default!r}, and does no longer")
    if later.others is False and earlier.others is not False:
        yield _at(path, "refuses fields that it does not know, and did not before")
    elif isinstance(later.others, Mapping) and earlier.others is not False:
        yield from _narrower(earlier.of(earlier.others), later.of(later.others), f"{path}{{}}")


def _poorer(earlier: _SchemaView, later: _SchemaView, path: str) -> Iterator[str]:
    """Yield where a reader of `earlier` may miss a field or find another type in data that fits
    `later`.
    """
    surprising = {now.type for now in later.alternatives} - {
        before.type for before in earlier.alternatives
    }
    if surprising and None not in {before.type for before in earlier.alternatives}:
        yield _at(path, f"may be {' or '.join(sorted(map(str, surprising)))} now")
    for now in later.alternatives:
        for before in earlier.alternatives:
            if before.type != now.type:
                continue
            for name in sorted(before.required - now.required):
                yield _at(_join(path, name), "was always there, and may be left out now")
            for name in before.fields.keys() & now.fields.keys():
                yield from _poorer(before.fields[name], now.fields[name], _join(path, name))
            if "items" in before.said and "items" in now.said:
                yield from _poorer(
                    before.of(before.said["items"]), now.of(now.said["items"]), f"{path}[]"
                )


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _at(path: str, what: str) -> str:
    return f"{path or 'the event'}: {what}"
