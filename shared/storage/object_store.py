"""Object store: immutable objects under relative keys, in a folder or any fsspec file system
(s3://, gs://, az://).

Writes are atomic: a folder gets a temporary file that is renamed; object stores put an object
atomically.
"""

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copyfile
from typing import Any, Protocol
from uuid import uuid4

import fsspec
from fsspec.implementations.local import LocalFileSystem

from shared.errors import DigestMismatch, ObjectNotFound, StorageUnavailable
from shared.events import Artefact
from shared.identity import digest_of
from shared.storage.keys import require_key


class ObjectStore(Protocol):
    """Storage of snapshots and adapters.

    Raises StorageUnavailable when the store does not respond, ObjectNotFound when an object does
    not exist, InvalidArtefact for a key that leads out of the store.
    """

    def put(self, key: str, data: bytes) -> Artefact:
        """Write an object and return its artefact. Idempotent."""

    def get(self, key: str) -> bytes: ...

    def put_file(self, key: str, path: Path) -> None:
        """Write an object from a file, which need not fit into memory. Idempotent."""

    def get_file(self, key: str, path: Path) -> None:
        """Write an object to a file."""

    def exists(self, key: str) -> bool: ...

    def list_keys(self, folder: str) -> list[str]:
        """Return the sorted keys of all objects below a folder; empty when it does not exist."""

    def delete(self, key: str) -> None:
        """Remove an object; a missing object is not an error."""


def get_verified(store: ObjectStore, artefact: Artefact) -> bytes:
    """Return the bytes of an artefact. Raises DigestMismatch when they do not match its digest."""
    data = store.get(artefact.uri)
    if (actual := digest_of(data)) != artefact.digest:
        raise DigestMismatch(artefact.uri, artefact.digest, actual)
    return data


def canonical_json(value: Any) -> bytes:
    """Encode as JSON with sorted keys and no whitespace: equal values have equal digests."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def local_folder(root: str) -> Path | None:
    """Return the local folder of a store's root, or None for a remote store."""
    files, path = fsspec.core.url_to_fs(root)
    return Path(path) if isinstance(files, LocalFileSystem) else None


class FsspecStore:
    """Object store on an fsspec file system.

    A URI is the key relative to the root, so that a store can be moved as a whole.
    """

    def __init__(self, root: str) -> None:
        self._files, path = fsspec.core.url_to_fs(root)
        self._root = str(path).rstrip("/")

    def put(self, key: str, data: bytes) -> Artefact:
        path = self._path(key)
        try:
            if isinstance(self._files, LocalFileSystem):
                _write_atomically(Path(path), lambda temporary: temporary.write_bytes(data))
            else:
                self._files.pipe_file(path, data)
        except OSError as error:
            raise StorageUnavailable(f"could not write {path}: {error}") from error
        return Artefact(uri=key, digest=digest_of(data))

    def get(self, key: str) -> bytes:
        try:
            data: bytes = self._files.cat_file(self._path(key))
        except FileNotFoundError as error:
            raise ObjectNotFound(f"{self._path(key)} is not in the object store") from error
        except OSError as error:
            raise StorageUnavailable(f"could not read {self._path(key)}: {error}") from error
        return data

    def put_file(self, key: str, path: Path) -> None:
        target = self._path(key)
        try:
            if isinstance(self._files, LocalFileSystem):
                _write_atomically(Path(target), lambda temporary: copyfile(path, temporary))
            else:
                self._files.put_file(str(path), target)
        except OSError as error:
            raise StorageUnavailable(f"could not write {target}: {error}") from error

    def get_file(self, key: str, path: Path) -> None:
        source = self._path(key)
        try:
            self._files.get_file(source, str(path))
        except FileNotFoundError as error:
            raise ObjectNotFound(f"{source} is not in the object store") from error
        except OSError as error:
            raise StorageUnavailable(f"could not read {source}: {error}") from error

    def exists(self, key: str) -> bool:
        try:
            return bool(self._files.exists(self._path(key)))
        except OSError as error:
            raise StorageUnavailable(f"could not check {self._path(key)}: {error}") from error

    def list_keys(self, folder: str) -> list[str]:
        try:
            paths = self._files.find(self._path(folder))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StorageUnavailable(f"could not list {self._path(folder)}: {error}") from error
        return sorted(str(path).removeprefix(f"{self._root}/") for path in paths)

    def delete(self, key: str) -> None:
        try:
            self._files.rm_file(self._path(key))
        except FileNotFoundError:
            pass
        except OSError as error:
            raise StorageUnavailable(f"could not remove {self._path(key)}: {error}") from error

    def _path(self, key: str) -> str:
        require_key(key)
        return f"{self._root}/{key}"


class MemoryStore:
    """In-memory object store, for tests."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def put(self, key: str, data: bytes) -> Artefact:
        require_key(key)
        self.objects[key] = data
        return Artefact(uri=key, digest=digest_of(data))

    def get(self, key: str) -> bytes:
        require_key(key)
        try:
            return self.objects[key]
        except KeyError as error:
            raise ObjectNotFound(f"{key} is not in the object store") from error

    def put_file(self, key: str, path: Path) -> None:
        self.put(key, path.read_bytes())

    def get_file(self, key: str, path: Path) -> None:
        path.write_bytes(self.get(key))

    def exists(self, key: str) -> bool:
        return key in self.objects

    def list_keys(self, folder: str) -> list[str]:
        return sorted(key for key in self.objects if key.startswith(f"{folder}/"))

    def delete(self, key: str) -> None:
        self.objects.pop(key, None)


def _write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
