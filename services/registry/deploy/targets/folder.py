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

from services.registry.deploy.targets.target import Build, Refused, Serving, TargetUnavailable
from services.registry.deploy.verification import Finding
from shared.identity import digest_of_file
from shared.storage.object_store import canonical_json

_ABOUT = "version.json"
_FILE = "model.gguf"


class Folder:
    """A folder that this process can write. Nothing answers there, so that verification is of the
    file's digest alone.
    """

    def __init__(self, location: str, name: str = "folder") -> None:
        self._root = Path(location)
        self.name = name

    serves_two = False
    """Who reads a folder follows its link, which leads to one version."""

    def served_name(self, model: str) -> str:
        return str(self._root / model / "champion")

    def name_of(self, model: str, version: str) -> str:
        return str(self._root / model / version)

    async def probe(self, model: str) -> Serving:
        async with _on_disk():
            return await asyncio.to_thread(_look, self._root / model)
        raise AssertionError("the body returns or raises")

    async def push(self, build: Build) -> None:
        async with _on_disk():
            await asyncio.to_thread(_publish, self._root / build.model / build.version, build)

    async def verify(self, build: Build) -> Finding:
        async with _on_disk():
            found = await asyncio.to_thread(
                digest_of_file, self._root / build.model / build.version / _FILE
            )
        reasons = (
            ()
            if found == build.digest
            else (f"the published file has digest {found}, the merged one {build.digest}",)
        )
        return Finding(not reasons, reasons, 0, 0, None)

    async def switch(self, model: str, version: str, previous: str | None) -> None:
        async with _on_disk():
            await asyncio.to_thread(_link, self._root / model, version)

    async def try_out(self, model: str, version: str | None) -> None:
        raise Refused(
            "a folder has one champion, and nobody who could be asked for another version"
        )

    async def remove(self, model: str, version: str) -> None:
        async with _on_disk():
            await asyncio.to_thread(_remove, self._root / model, version)


@asynccontextmanager
async def _on_disk() -> AsyncIterator[None]:
    try:
        yield
    except OSError as error:
        raise TargetUnavailable(f"the folder cannot be read or written: {error}") from error


def _look(folder: Path) -> Serving:
    versions = {}
    for about in sorted(folder.glob(f"[!.]*/{_ABOUT}")):
        with suppress(ValueError, KeyError):
            if not about.parent.is_symlink():
                versions[about.parent.name] = json.loads(about.read_bytes())["digest"]
    link = folder / "champion"
    return Serving(link.readlink().name if link.is_symlink() else None, None, versions)


def _publish(folder: Path, build: Build) -> None:
    if folder.exists():
        digest = json.loads((folder / _ABOUT).read_bytes())["digest"]
        if digest != build.digest:
            raise Refused(
                f"{folder} holds {digest} and versions never change; remove the folder to "
                f"publish {build.digest}"
            )
        return
    beside = folder.with_name(f".{folder.name}.{uuid4().hex}")
    beside.mkdir(parents=True)
    try:
        shutil.copyfile(build.path, beside / _FILE)
        for name, content in build.adapter.items():
            (beside / Path(name).name).write_bytes(content)
        (beside / _ABOUT).write_bytes(
            canonical_json({"model": build.model, "version": build.version, "digest": build.digest})
        )
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _link(folder: Path, version: str) -> None:
    if not (folder / version / _ABOUT).is_file():
        raise Refused(f"{folder / version} is not published")
    beside = folder / f".champion.{uuid4().hex}"
    beside.symlink_to(version)
    beside.replace(folder / "champion")


def _remove(folder: Path, version: str) -> None:
    if _look(folder).champion == version:
        raise Refused(f"{version} is the champion; switch first")
    shutil.rmtree(folder / version, ignore_errors=True)
