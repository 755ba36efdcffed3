"""Object store wrapper that counts failed operations."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

from shared.errors import StorageUnavailable
from shared.events import Artefact
from shared.observability.metrics import Metrics
from shared.storage.object_store import ObjectStore

Operation = Literal["put", "get", "exists", "below", "delete"]


class CountedStore:
    """Wraps a store and counts its operations that raised StorageUnavailable. A missing object is
    not a failure.
    """

    def __init__(self, store: ObjectStore, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics
        for operation in get_args(Operation):
            metrics.init_series("ratchet_object_store_errors_total", operation=operation)

    def put(self, key: str, data: bytes) -> Artefact:
        with self._counting("put"):
            return self._store.put(key, data)

    def get(self, key: str) -> bytes:
        with self._counting("get"):
            return self._store.get(key)

    def put_file(self, key: str, path: Path) -> None:
        with self._counting("put"):
            self._store.put_file(key, path)

    def get_file(self, key: str, path: Path) -> None:
        with self._counting("get"):
            self._store.get_file(key, path)

    def exists(self, key: str) -> bool:
        with self._counting("exists"):
            return self._store.exists(key)

    def list_keys(self, folder: str) -> list[str]:
        with self._counting("below"):
            return self._store.list_keys(folder)

    def delete(self, key: str) -> None:
        with self._counting("delete"):
            self._store.delete(key)

    @contextmanager
    def _counting(self, operation: Operation) -> Iterator[None]:
        try:
            yield
        except StorageUnavailable:
            self._metrics.count("ratchet_object_store_errors_total", operation=operation)
            raise
