"""Uploaded files: streamed to a temporary file within a limit, checked by digest, then moved to the
object store. At most `MAX_AT_ONCE` at a time.
"""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO
from uuid import uuid4

from starlette.types import Scope

from services.registry.training_requests import TrainingRequestRefused, UploadTooLarge
from shared.errors import StorageUnavailable, Unavailable
from shared.events import Artefact
from shared.storage.object_store import ObjectStore
from shared.storage.uploads import is_expired, is_upload_of, upload_key, uploads_folder

MAX_AT_ONCE = 4

_PIECE_BYTES = 1 << 20
_PATH = re.compile(r"/api/models/[^/]+/uploads|/models/[^/]+/train")


class TooManyUploads(Unavailable):
    """Other uploads are in progress."""


def is_upload(scope: Scope) -> bool:
    """Return whether a request uploads a file, whose body is read as it arrives."""
    return scope["method"] == "POST" and bool(_PATH.fullmatch(scope["path"]))


@dataclass(frozen=True, slots=True)
class Upload:
    """A stored file, with its size in bytes."""

    artefact: Artefact
    size: int


class Uploads:
    """Receives files for a model."""

    def __init__(self, store: ObjectStore, max_bytes: int) -> None:
        self._store = store
        self.max_bytes = max_bytes
        self._active = 0

    async def receive(
        self,
        model: str,
        body: AsyncIterator[bytes],
        declared_bytes: int | None,
        digest: str | None,
        now: datetime,
    ) -> Upload:
        """Store a file, and delete expired ones of the model. `digest` is what the file has to
        have. Raises UploadTooLarge, TooManyUploads, TrainingRequestRefused, StorageUnavailable.
        """
        if declared_bytes is not None and declared_bytes > self.max_bytes:
            raise self._too_large()
        if self._active >= MAX_AT_ONCE:
            raise TooManyUploads(f"{self._active} uploads are in progress; try again in a moment")
        self._active += 1
        try:
            with NamedTemporaryFile(prefix="upload-") as file:
                size, actual = await self._spool(body, file)
                if not size:
                    raise TrainingRequestRefused("the file is empty")
                if digest is not None and digest != actual:
                    raise TrainingRequestRefused(
                        f"the file has the digest {actual}, expected {digest}: it was cut off or "
                        "altered; upload it again"
                    )
                key = upload_key(model, uuid4().hex, now)
                await asyncio.to_thread(self._store.put_file, key, Path(file.name))
        except OSError as error:
            raise StorageUnavailable(f"the file could not be stored: {error}") from error
        finally:
            self._active -= 1
        await asyncio.to_thread(self._delete_expired, model, now)
        return Upload(Artefact(uri=key, digest=actual), size)

    def exists(self, model: str, key: str) -> bool:
        """Return whether a key is that of a stored upload of a model. Raises StorageUnavailable."""
        return is_upload_of(model, key) and self._store.exists(key)

    async def _spool(self, body: AsyncIterator[bytes], file: IO[bytes]) -> tuple[int, str]:
        """Write a body to a file; return its size and its digest."""
        hashed, size, piece = hashlib.sha256(), 0, bytearray()

        def write(data: bytes) -> None:
            hashed.update(data)
            file.write(data)

        async for chunk in body:
            size += len(chunk)
            if size > self.max_bytes:
                raise self._too_large()
            piece += chunk
            if len(piece) >= _PIECE_BYTES:
                await asyncio.to_thread(write, bytes(piece))
                piece.clear()
        await asyncio.to_thread(write, bytes(piece))
        await asyncio.to_thread(file.flush)
        return size, f"sha256:{hashed.hexdigest()}"

    def _delete_expired(self, model: str, now: datetime) -> None:
        with suppress(StorageUnavailable):  # the next upload deletes them
            for key in self._store.list_keys(uploads_folder(model)):
                if is_upload_of(model, key) and is_expired(key, now):
                    self._store.delete(key)

    def _too_large(self) -> UploadTooLarge:
        return UploadTooLarge(
            f"the file has more than {self.max_bytes} bytes (RATCHET_UPLOAD_MIB of the registry); "
            "divide it, or compress it with gzip"
        )
