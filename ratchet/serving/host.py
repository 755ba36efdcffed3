"""The serving host: the catalogue on disk and the pool of engines, changed together."""

import asyncio
import json
from collections.abc import Collection
from pathlib import Path
from uuid import uuid4

from ratchet.serving.catalogue import Catalogue, TaggedFile
from ratchet.serving.engine import EngineOptions
from ratchet.serving.pool import EnginePool
from shared.config.template_variables import DEFAULT_VARIABLES, TemplateVariables
from shared.errors import DigestMismatch, InvalidArtefact, Misconfigured, RatchetError
from shared.identity import digest_of_file
from shared.logs import Log


class FileNotServable(RatchetError):
    """The path is not that of a readable file in the folder of merged models."""


class ServingHost:
    """Tags, aliases and loaded engines. The state is one JSON file, replaced atomically; it
    survives restarts. Files are served from `merged`, the folder of merged models, alone.
    """

    def __init__(
        self, folder: Path, merged: Path, options: EngineOptions, limit: int, log: Log
    ) -> None:
        self._merged = merged
        self._file = folder / "state.json"
        self._log = log
        self._changing = asyncio.Lock()
        self.catalogue = _read(self._file)
        self.pool = EnginePool(self, options, limit, folder / "logs", log)

    def path_of(self, tag: str) -> str:
        return self.catalogue.tags[self.catalogue.resolve(tag)].path

    def template_of(self, tag: str) -> TemplateVariables:
        """Return the variables of a tag's chat template."""
        return self.catalogue.tags[tag].template

    def aliased_tags(self) -> Collection[str]:
        return self.catalogue.aliased_tags

    @property
    def is_ready(self) -> bool:
        """True if every tag with an alias is loaded."""
        return self.catalogue.aliased_tags <= set(self.pool.loaded)

    async def start(self) -> None:
        """Load every tag with an alias. A failure is logged and leaves the host not ready."""
        for tag in sorted(self.catalogue.aliased_tags):
            try:
                await self.pool.load(tag)
            except InvalidArtefact as error:
                self._log.error("aliased version could not be loaded", tag=tag, reason=str(error))

    async def put_tag(
        self,
        tag: str,
        path: str,
        digest: str,
        template: TemplateVariables = DEFAULT_VARIABLES,
    ) -> None:
        """Add a file under a tag and load it, after verifying its digest. Idempotent.

        Raises FileNotServable if the file is missing or outside the folder of merged models;
        DigestMismatch or InvalidArtefact if it has another digest or cannot be loaded;
        CatalogueConflict if the tag has another digest.
        """
        async with self._changing:
            changed = self.catalogue.with_tag(
                tag, TaggedFile(path=path, digest=digest, template=template)
            )
            if not await asyncio.to_thread(self._is_servable, Path(path)):
                raise FileNotServable(
                    f"{path} is not a readable file in {self._merged}; RATCHET_MERGED has to be "
                    "the same for the registry and the serving host"
                )
            if (actual := await asyncio.to_thread(digest_of_file, Path(path))) != digest:
                raise DigestMismatch(path, digest, actual)
            previous, self.catalogue = self.catalogue, changed
            try:
                await self.pool.load(tag)
            except BaseException:
                self.catalogue = previous
                raise
            await self._save()

    def _is_servable(self, path: Path) -> bool:
        """True for a file in the folder of merged models, also by its real path."""
        return path.resolve().is_relative_to(self._merged.resolve()) and path.is_file()

    async def move_alias(self, alias: str, tag: str) -> None:
        """Load a tag, then move an alias to it. Active requests finish on the previous version."""
        async with self._changing:
            self.catalogue.with_alias(alias, tag)
            await self.pool.load(tag)
            self.catalogue = self.catalogue.with_alias(alias, tag)
            await self._save()
        self.pool.unload_excess()

    async def remove_alias(self, alias: str) -> None:
        """Remove an alias; its tag stays, and stays loaded while the limit permits. Raises
        ModelNotFound.
        """
        async with self._changing:
            self.catalogue = self.catalogue.without_alias(alias)
            await self._save()
        self.pool.unload_excess()

    async def remove_tag(self, tag: str) -> None:
        """Remove and unload a tag; its file stays. Raises ModelNotFound, or CatalogueConflict while
        an alias names it.
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
            f"{file} is not a valid state file; move it away to start with an empty state: {error}"
        ) from error


def _write(file: Path, catalogue: Catalogue) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{uuid4().hex}")
    temporary.write_text(json.dumps(catalogue.model_dump(mode="json"), indent=2), encoding="utf-8")
    temporary.replace(file)
