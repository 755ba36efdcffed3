"""Texts with slots: `{name}` or `{name.field}`, with `{{` and `}}` for braces."""

import re
from collections.abc import Callable

_SLOT = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)?)\}")


def slots_of(text: str) -> frozenset[str]:
    """Return the names of the slots of a text."""
    return frozenset(found[1] for found in _SLOT.finditer(text) if found[1])


def fill(text: str, value_of: Callable[[str], str]) -> str:
    """Replace the slots of a text. Values are not searched for slots."""
    return _SLOT.sub(lambda found: value_of(found[1]) if found[1] else found[0][0], text)
