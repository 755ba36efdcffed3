"""Errors for keys that do not exist, with the key that was probably meant."""

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

_SHOWN = 12


def unknown_key_text(name: str, known: Collection[str], kind: str = "key") -> str:
    """Say that `name` does not exist, and which of the known names was meant or may be used."""
    if similar := get_close_matches(name, known, n=1):
        return f"no such {kind}; did you mean {similar[0]}?"
    if not known:
        return f"no such {kind}; nothing is expected here"
    shown = ", ".join(list(known)[:_SHOWN])
    return f"no such {kind}; expected one of {shown}{', …' if len(known) > _SHOWN else ''}"


def keys_at(schema: Mapping[str, Any], location: Sequence[str | int]) -> list[str]:
    """Return the keys that a JSON Schema, as pydantic writes it, declares for the mapping at
    `location`; empty where it declares none.
    """
    places = [schema]
    for step in location:
        places = [inner for place in _resolved(schema, places) for inner in _below(place, step)]
    return [name for place in _resolved(schema, places) for name in place.get("properties", ())]


def _resolved(schema: Mapping[str, Any], places: Sequence[Any]) -> list[Mapping[str, Any]]:
    """Follow references and alternatives."""
    resolved: list[Mapping[str, Any]] = []
    for place in places:
        if "$ref" in place:
            name = place["$ref"].rpartition("/")[2]
            resolved += _resolved(schema, [schema["$defs"][name]])
        elif alternatives := [*place.get("anyOf", ()), *place.get("oneOf", ())]:
            resolved += _resolved(schema, alternatives)
        else:
            resolved.append(place)
    return resolved


def _below(place: Mapping[str, Any], step: str | int) -> list[Any]:
    """Return the schemas of a key or an index."""
    inner = place.get("items") if isinstance(step, int) else None
    if inner is None:
        inner = place.get("properties", {}).get(step, place.get("additionalProperties"))
    return [inner] if isinstance(inner, dict) else []
