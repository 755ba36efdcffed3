"""Keyset pagination: a page ends at a sort key and the next one starts after it, so rows added
meanwhile cause no gaps or duplicates. Pure.

A cursor holds the list's name and the key; clients send it back unchanged.
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
    """The cursor does not belong to this list."""


@dataclass(frozen=True, slots=True)
class PageRequest(Generic[K]):
    """A requested page: at most `limit` rows of the list `list_name`, after a key or from the
    start.
    """

    list_name: str
    limit: int
    after: K | None


@dataclass(frozen=True, slots=True)
class Page(Generic[R]):
    """Rows, with the cursor of the next page if there are more."""

    rows: Sequence[R]
    next: str | None


def page_request(
    of: str, limit: int, cursor: str | None, key: Callable[[list[Any]], K]
) -> PageRequest[K]:
    """Build a page request. `key` parses the sort key of this list. Raises UnknownCursor."""
    if cursor is None:
        return PageRequest(of, limit, None)
    try:
        name, *parts = json.loads(urlsafe_b64decode(cursor.encode()))
        if name == of:
            return PageRequest(of, limit, key(parts))
    except (ValueError, TypeError, OverflowError, RecursionError):
        pass
    raise UnknownCursor(
        "query.cursor: not a cursor of this list; send `next` of the previous page, or leave it "
        "out to start again"
    )


def paginate(
    page: PageRequest[K], rows: Sequence[R], key: Callable[[R], Sequence[str | int]]
) -> Page[R]:
    """Build a page from the rows read, one more than `limit` if there are more."""
    shown = rows[: page.limit]
    more = len(rows) > page.limit
    return Page(shown, _cursor(page.list_name, key(shown[-1])) if more else None)


def parse_number(parts: list[Any]) -> int:
    """Parse the key of a list sorted by number. Raises ValueError."""
    (value,) = parts
    if type(value) is not int or not 0 <= value < _LARGEST:
        raise ValueError(value)
    return value


def parse_name(parts: list[Any]) -> str:
    """Parse the key of a list sorted by name. Raises ValueError."""
    (value,) = parts
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(value)
    value.encode()  # refuses half a surrogate pair, which no database stores
    return value


def parse_time_and_name(parts: list[Any]) -> tuple[datetime, str]:
    """Parse the key of a list sorted by time, then name. Raises ValueError."""
    at, *rest = parts
    return datetime.fromisoformat(at).astimezone(UTC), parse_name(rest)


def next_link(path: str, limit: int, cursor: str, **filters: str) -> str:
    """Return the `Link` header of the next page (RFC 8288), with the list's other parameters."""
    query = urlencode(filters | {"limit": str(limit), "cursor": cursor})
    return f'<{path}?{query}>; rel="next"'


def _cursor(of: str, key: Sequence[str | int]) -> str:
    return urlsafe_b64encode(json.dumps([of, *key], separators=(",", ":")).encode()).decode()
