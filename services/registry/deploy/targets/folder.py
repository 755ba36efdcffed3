"""A folder as a target: others serve what lies there.

    <folder>/<model>/<version>/model.gguf, version.json and the adapter's files
    <folder>/<model>/champion -> <version>

A version's folder appears as a whole, and the link is replaced in one step.
"""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from uuid import uuid4

from services.registry.deploy.targets.target import (
    MergedModel,
    TargetRefused,
    TargetState,
    TargetUnavailable,
)
from services.registry.deploy.verification import VerificationResult
from shared.identity import digest_of_file
from shared.storage.object_store import canonical_json

_VERSION_FILE = "version.json"
_MODEL_FILE = "model.gguf"


class FolderTarget:
    """A folder that this process can write. Nothing answers there, so that verification is of the
    file's digest alone.
    """

    def __init__(self, location: str, name: str = "folder") -> None:
        self._root = Path(location)
        self.name = name

    supports_canary = False
    """Who reads a folder follows its link, which leads to one version."""

    def served_name(self, model: str) -> str:
        return str(self._root / model / "champion")

    def served_name_of(self, model: str, version: str) -> str:
        return str(self._root / model / version)

    async def inspect(self, model: str) -> TargetState:
        async with _translate_errors():
            return await asyncio.to_thread(_read_state, self._root / model)
        raise AssertionError("the body returns or raises")

    async def push(self, build: MergedModel) -> None:
        async with _translate_errors():
            await asyncio.to_thread(_publish, self._root / build.model / build.version, build)

    async def verify(self, build: MergedModel) -> VerificationResult:
        async with _translate_errors():
            found = await asyncio.to_thread(
                digest_of_file, self._root / build.model / build.version / _MODEL_FILE
            )
        reasons = (
            ()
            if found == build.digest
            else (f"the published file has digest {found}, the merged one {build.digest}",)
        )
        return VerificationResult(not reasons, reasons, 0, 0, None)

    async def switch(self, model: str, version: str, previous: str | None) -> None:
        async with _translate_errors():
            await asyncio.to_thread(_link, self._root / model, version)

    async def set_challenger(self, model: str, version: str | None) -> None:
        raise TargetRefused(
            "a folder has one champion, and nobody who could be asked for another version"
        )

    async def remove(self, model: str, version: str) -> None:
        async with _translate_errors():
            await asyncio.to_thread(_remove, self._root / model, version)


@asynccontextmanager
async def _translate_errors() -> AsyncIterator[None]:
    try:
        yield
    except OSError as error:
        raise TargetUnavailable(f"the folder cannot be read or written: {error}") from error


def _read_state(folder: Path) -> TargetState:
    versions = {}
    for about in sorted(folder.glob(f"[!.]*/{_VERSION_FILE}")):
        with suppress(ValueError, KeyError):
            if not about.parent.is_symlink():
                versions[about.parent.name] = json.loads(about.read_bytes())["digest"]
    link = folder / "champion"
    return TargetState(link.readlink().name if link.is_symlink() else None, None, versions)


def _publish(folder: Path, build: MergedModel) -> None:
    if folder.exists():
        digest = json.loads((folder / _VERSION_FILE).read_bytes())["digest"]
        if digest != build.digest:
            raise TargetRefused(
                f"{folder} holds {digest} and versions never change; remove the folder to "
                f"publish {build.digest}"
            )
        return
    beside = folder.with_name(f".{folder.name}.{uuid4().hex}")
    beside.mkdir(parents=True)
    try:
        shutil.copyfile(build.path, beside / _MODEL_FILE)
        for name, content in build.adapter.items():
            (beside / Path(name).name).write_bytes(content)
        (beside / _VERSION_FILE).write_bytes(
            canonical_json({"model": build.model, "version": build.version, "digest": build.digest})
        )
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _link(folder: Path, version: str) -> None:
    if not (folder / version / _VERSION_FILE).is_file():
        raise TargetRefused(f"{folder / version} is not published")
    beside = folder / f".champion.{uuid4().hex}"
    beside.symlink_to(version)
    beside.replace(folder / "champion")


def _remove(folder: Path, version: str) -> None:
    if _read_state(folder).champion == version:
        raise TargetRefused(f"{version} is the champion; switch first")
    shutil.rmtree(folder / version, ignore_errors=True)
