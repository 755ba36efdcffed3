"""A folder as a target, for other software that serves files from it.

    <folder>/<model>/<version>/model.gguf, version.json and the adapter's files
    <folder>/<model>/champion -> <version>

A version's folder appears only when complete, and the link is replaced atomically.
"""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Sequence
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
from shared.events import Message
from shared.identity import digest_of_file
from shared.storage.object_store import canonical_json

_VERSION_FILE = "version.json"
_MODEL_FILE = "model.gguf"


class FolderTarget:
    """A folder that this process can write. Nothing answers there, so verification is limited to
    the file's digest.
    """

    def __init__(self, location: str, name: str = "folder") -> None:
        self._root = Path(location)
        self.name = name

    supports_canary = False
    """Readers of a folder follow its link, which names one version."""

    def served_name(self, model: str) -> str:
        return str(self._root / model / "champion")

    def served_name_of(self, model: str, version: str) -> str:
        return str(self._root / model / version)

    async def inspect(self, model: str) -> TargetState:
        async with _translate_errors():
            return await asyncio.to_thread(_read_state, self._root / model)
        raise AssertionError("the body returns or raises")

    async def push(self, merged: MergedModel) -> None:
        async with _translate_errors():
            await asyncio.to_thread(_publish, self._root, merged)

    async def verify(self, merged: MergedModel) -> VerificationResult:
        async with _translate_errors():
            digest = await asyncio.to_thread(
                digest_of_file, self._root / merged.model / merged.version / _MODEL_FILE
            )
        reasons = (
            ()
            if digest == merged.digest
            else (f"the published file has digest {digest}, the merged one {merged.digest}",)
        )
        return VerificationResult(not reasons, reasons, 0, 0, None)

    async def answer(
        self, model: str, version: str, messages: Sequence[Message], max_tokens: int
    ) -> str:
        raise TargetRefused(f"{self.name} answers no questions")

    async def switch(self, model: str, version: str, previous: str | None) -> None:
        async with _translate_errors():
            await asyncio.to_thread(_link, self._root / model, version)

    async def set_challenger(self, model: str, version: str | None) -> None:
        raise TargetRefused("a folder target serves one champion and cannot run a canary trial")

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
    for file in sorted(folder.glob(f"[!.]*/{_VERSION_FILE}")):
        with suppress(ValueError, KeyError):
            if not file.parent.is_symlink():
                versions[file.parent.name] = json.loads(file.read_bytes())["digest"]
    link = folder / "champion"
    return TargetState(link.readlink().name if link.is_symlink() else None, None, versions)


def _publish(root: Path, merged: MergedModel) -> None:
    """Write a version's folder with the permissions of `root`, whatever the umask of this process:
    that of `ratchet up` hides files from other users.
    """
    root.mkdir(parents=True, exist_ok=True)
    mode = root.stat().st_mode
    folder = root / merged.model / merged.version
    if folder.exists():
        digest = json.loads((folder / _VERSION_FILE).read_bytes())["digest"]
        if digest != merged.digest:
            raise TargetRefused(
                f"{folder} holds {digest} and versions never change; remove the folder to "
                f"publish {merged.digest}"
            )
        return
    temporary = folder.with_name(f".{folder.name}.{uuid4().hex}")
    for new in (folder.parent, temporary):
        if not new.exists():
            new.mkdir()
            new.chmod(mode & 0o777)
    try:
        shutil.copyfile(merged.path, temporary / _MODEL_FILE)
        for name, content in merged.adapter.items():
            (temporary / Path(name).name).write_bytes(content)
        (temporary / _VERSION_FILE).write_bytes(
            canonical_json(
                {"model": merged.model, "version": merged.version, "digest": merged.digest}
            )
        )
        for file in temporary.iterdir():
            file.chmod(mode & 0o666)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _link(folder: Path, version: str) -> None:
    if not (folder / version / _VERSION_FILE).is_file():
        raise TargetRefused(f"{folder / version} is not published")
    temporary = folder / f".champion.{uuid4().hex}"
    temporary.symlink_to(version)
    temporary.replace(folder / "champion")


def _remove(folder: Path, version: str) -> None:
    if _read_state(folder).champion == version:
        raise TargetRefused(f"{version} is the champion; switch first")
    shutil.rmtree(folder / version, ignore_errors=True)
