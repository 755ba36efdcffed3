"""Merged models on this machine's disk: made when a target needs one, kept for a while, made again
if deleted.
"""

import asyncio
from collections.abc import Collection
from functools import partial
from pathlib import Path

from pydantic import TypeAdapter

from services.registry.deploy.targets.target import MergedModel
from services.registry.gguf.merge import MergedFile, merge
from services.registry.store.database import Database, Session
from services.registry.store.queries import adapter_of, version_of
from services.registry.store.tables import VersionRow
from shared.config.models import Models
from shared.events import Probe
from shared.storage.adapters import read_adapter
from shared.storage.object_store import ObjectStore

_PROBES = TypeAdapter(tuple[Probe, ...])


class MergedModels:
    """Files `<folder>/<model>/<version>.gguf`; their digests are in the database."""

    def __init__(
        self, database: Database, store: ObjectStore, models: Models, bases: Path, folder: Path
    ) -> None:
        self._database = database
        self._store = store
        self._models = models
        self._bases = bases
        self._folder = folder.absolute()
        self._lock = asyncio.Lock()

    async def get(self, model: str, name: str) -> MergedModel:
        """Return a version's merged model, merging it if necessary, one at a time. Raises
        InvalidArtefact or StorageUnavailable if base or adapter cannot be read or merged.
        """
        async with self._lock:
            version = await self._database.run(partial(_require_version, model=model, name=name))
            artefact = adapter_of(version)
            adapter = (
                await asyncio.to_thread(read_adapter, self._store, artefact) if artefact else None
            )
            path = self._path(model, name)
            if (
                version.merged_digest
                and version.merged_path == str(path)
                and await asyncio.to_thread(path.is_file)
            ):
                digest = version.merged_digest
            else:
                base = self._bases / self._models.get(model).base.serving
                merged = await asyncio.to_thread(merge, base, adapter, path)
                await self._database.run(partial(_record, model=model, name=name, merged=merged))
                digest = merged.digest
            probes = _PROBES.validate_python(version.probes)
            return MergedModel(model, name, path, digest, adapter.files if adapter else {}, probes)

    async def delete(self, model: str, name: str) -> None:
        """Delete a file; `get` makes it again. A missing file is not an error."""
        await asyncio.to_thread(self._path(model, name).unlink, missing_ok=True)

    async def versions_on_disk(self, model: str) -> Collection[str]:
        """Return the versions that have a file."""
        return await asyncio.to_thread(
            lambda: {path.stem for path in (self._folder / model).glob("v*.gguf")}
        )

    def _path(self, model: str, name: str) -> Path:
        return self._folder / model / f"{name}.gguf"


def _require_version(session: Session, model: str, name: str) -> VersionRow:
    version = version_of(session, model, name)
    assert version is not None, f"{model} has no version {name}"
    return version


def _record(session: Session, model: str, name: str, merged: MergedFile) -> None:
    version = _require_version(session, model, name)
    version.merged_path, version.merged_digest = str(merged.path), merged.digest
