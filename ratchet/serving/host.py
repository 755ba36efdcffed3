"""The host: the catalogue on disk and the pool of engines, changed together."""

import asyncio
import json
from collections.abc import Collection
from pathlib import Path
from uuid import uuid4

from ratchet.serving.catalogue import Catalogue, TaggedFile
from ratchet.serving.engine import EngineOptions
from ratchet.serving.pool import EnginePool
from shared.errors import DigestMismatch, InvalidArtefact, Misconfigured, ObjectNotFound
from shared.identity import digest_of_file
from shared.logs import Log


class ServingHost:
    """Tags, aliases and what is in memory. State survives a restart: it is one JSON file, replaced
    as a whole.
    """

    def __init__(self, folder: Path, options: EngineOptions, limit: int, log: Log) -> None:
        self._file = folder / "state.json"
        self._log = log
        self._changing = asyncio.Lock()
        self.catalogue = _read(self._file)
        self.pool = EnginePool(self, options, limit, folder / "logs", log)

    def path_of(self, tag: str) -> str:
        return self.catalogue.tags[self.catalogue.resolve(tag)].path

    def aliased_tags(self) -> Collection[str]:
        return self.catalogue.aliased_tags

    @property
    def is_ready(self) -> bool:
        """Whether every version that an alias names is in memory."""
        return self.catalogue.aliased_tags <= set(self.pool.loaded)

    async def start(self) -> None:
        """Load what the aliases name. A version that cannot be loaded is logged and leaves the host
        not ready.
        """
        for tag in sorted(self.catalogue.aliased_tags):
            try:
                await self.pool.load(tag)
            except InvalidArtefact as error:
                self._log.error(
                    "an aliased version could not be loaded", tag=tag, reason=str(error)
                )

    async def put_tag(self, tag: str, path: str, digest: str) -> None:
        """Make a file known under a tag and load it; its digest is computed here. The same again is
        harmless.

        Raises Missing, Corrupt or Unusable for a file that is not there, is not the one announced,
        or cannot be loaded; Conflict when the tag stands for another.
        """
        async with self._changing:
            changed = self.catalogue.with_tag(tag, TaggedFile(path=path, digest=digest))
            if not await asyncio.to_thread(Path(path).is_file):
                raise ObjectNotFound(f"{path} is not a file that this host can read")
            if (found := await asyncio.to_thread(digest_of_file, Path(path))) != digest:
                raise DigestMismatch(path, digest, found)
            before, self.catalogue = self.catalogue, changed
            try:
                await self.pool.load(tag)
            except BaseException:
                self.catalogue = before
                raise
            await self._save()

    async def move_alias(self, alias: str, tag: str) -> None:
        """Let an alias name a tag, once that is in memory. Requests under way finish on the version
        that they began with.
        """
        async with self._changing:
            self.catalogue.with_alias(alias, tag)
            await self.pool.load(tag)
            self.catalogue = self.catalogue.with_alias(alias, tag)
            await self._save()
        self.pool.unload_excess()

    async def remove_alias(self, alias: str) -> None:
        """Forget an alias; its tag stays, in memory as long as there is room. Raises NotThere."""
        async with self._changing:
            self.catalogue = self.catalogue.without_alias(alias)
            await self._save()
        self.pool.unload_excess()

    async def remove_tag(self, tag: str) -> None:
        """Forget a tag and let it go; its file stays. Raises NotThere, or Conflict while an alias
        names it.
        """
        async with self._changing:
            self.catalogue = self.catalogue.without_tag(tag)
            await self._save()
        self.pool.unload(tag)

    async def close(self) -> None:
        await self.pool.close()

    async def _save(self) -> None:
        await asyncio.to_thread(_write, self._file, self.catalogue)


def _read(file: Path) -> Catalogue:
    try:
        return Catalogue.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return Catalogue()
    except ValueError as error:
        raise Misconfigured(
            f"{file} is not this host's state; move it away to begin with none: {error}"
        ) from error


def _write(file: Path, catalogue: Catalogue) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.{uuid4().hex}")
    beside.write_text(json.dumps(catalogue.model_dump(mode="json"), indent=2), encoding="utf-8")
    beside.replace(file)
