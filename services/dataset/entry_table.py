"""Port of the table of entries, the only durable state of the service."""

from collections.abc import Awaitable
from typing import Any, Protocol

from services.dataset.ledger.results import TableWrite
from shared.storage.dataset_entries import ClosedBatch


class EntryTable(Protocol):
    """Encoded entries and batch records by key. Every change but `cache` returns an awaitable that
    completes when the change is durable.
    """

    def put(self, write: TableWrite) -> Awaitable[Any]: ...

    def put_batch(self, batch: ClosedBatch) -> Awaitable[Any]: ...

    def cache(self, key: str, value: bytes) -> None:
        """Change the value in memory only."""

    def delete(self, partition: int, key: str) -> Awaitable[Any]: ...
