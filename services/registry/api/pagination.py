"""Lists in pages: a page ends at a key, and the next begins after it, so that nothing is skipped or
told twice while rows are added. Pure.

A cursor says where in which list; whoever has one sends it back as it is.
"""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode

from shared.errors import RatchetError

DEFAULT_LIMIT = 50
MAX_LIMIT = 200

_LARGEST = 1 << 53

R = TypeVar("R")
K = TypeVar("K")


class UnknownCursor(RatchetError):
    """A cursor that did not come from this list."""


@dataclass(frozen=True, slots=True)
class PageRequest(Generic[K]):
    """A page that is asked for: at most `limit` rows of the list called `of`, after a key, or from
    the beginning.
    """

    list_name: str
    limit: int
    after: K | None


@dataclass(frozen=True, slots=True)
class Page(Generic[R]):
    """Rows, and the cursor of the page after them, if there is more."""

    rows: Sequence[R]
    next: str | None


def page_request(
    of: str, limit: int, cursor: str | None, key: Callable[[list[Any]], K]
) -> PageRequest[K]:
    """What a request asks for; `key` reads where rows stand in this list. Raises UnknownCursor."""
    if cursor is None:
        return PageRequest(of, limit, None)
    try:
        name, *parts = json.loads(urlsafe_b64decode(cursor.encode()))
        if name == of:
            return PageRequest(of, limit, key(parts))
    except (ValueError, TypeError, OverflowError, RecursionError):
        pass
    raise UnknownCursor(
        "query.cursor: this is no cursor of this list; send `next` of the page before, or "
        "leave it out to begin anew"
    )


def paginate(
    page: PageRequest[K], found: Sequence[R], key: Callable[[R], Sequence[str | int]]
) -> Page[R]:
    """A page of what was found, which is one row more than was asked for where there is more."""
    rows = found[: page.limit]
    more = len(found) > page.limit
    return Page(rows, _cursor(page.list_name, key(rows[-1])) if more else None)


def parse_number(parts: list[Any]) -> int:
    """Where rows are numbered. Raises ValueError for what is none, as the others do."""
    (value,) = parts
    if type(value) is not int or not 0 <= value < _LARGEST:
        raise ValueError(value)
    return value


def parse_name(parts: list[Any]) -> str:
    """Where rows have names."""
    (value,) = parts
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(value)
    value.encode()  # no half of a surrogate pair, which no database takes
    return value


def parse_time_and_name(parts: list[Any]) -> tuple[datetime, str]:
    """Where rows have times, and names by which those of one time are told apart."""
    at, *rest = parts
    return datetime.fromisoformat(at).astimezone(UTC), parse_name(rest)


def next_link(path: str, limit: int, cursor: str) -> str:
    """The `Link` to a page (RFC 8288), from the machine that answers."""
    return f'<{path}?{urlencode({"limit": limit, "cursor": cursor})}>; rel="next"'


def _cursor(of: str, key: Sequence[str | int]) -> str:
    return urlsafe_b64encode(json.dumps([of, *key], separators=(",", ":")).encode()).decode()
