"""Port of the table of entries, the only durable state of the service."""

from collections.abc import Awaitable
from typing import Any, Protocol

from services.dataset.ledger.results import TableWrite


class EntryTable(Protocol):
    """Encoded entries and batch records by key. `put` and `delete` return an awaitable that
    completes when the change is durable.
    """

    def put(self, write: TableWrite) -> Awaitable[Any]: ...

    def cache(self, key: str, value: bytes) -> None:
        """Change the value in memory only."""

    def delete(self, partition: int, key: str) -> Awaitable[Any]: ...
