"""`ratchet export`: a version's adapter, or base and adapter merged, as files for other tools."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any
from urllib.parse import quote

import typer

from ratchet import console
from ratchet.local_stack.token_store import token_for
from ratchet.options import (
    DEFAULT_REGISTRY,
    DEFAULT_STATE,
    Bases,
    Json,
    ModelFiles,
    Registry,
    State,
    Token,
)
from ratchet.registry_client import RegistryClient
from shared.config.models import load_models
from shared.errors import CommandRefused, InvalidArtefact, ObjectNotFound
from shared.events import Artefact
from shared.python_command import module_command
from shared.storage.adapters import MODEL_CARD, read_adapter
from shared.storage.object_store import FsspecStore

export = typer.Typer()

Objects = Annotated[
    str,
    typer.Option(
        "--object-store", envvar="RATCHET_OBJECT_STORE", help="A folder or an fsspec URL."
    ),
]


@export.command("export")
def export_version(
    version: Annotated[str, typer.Argument(help="MODEL/VERSION, such as support/v3.")],
    adapter: Annotated[
        Path | None, typer.Option(help="New folder for the adapter, in PEFT's format.")
    ] = None,
    gguf: Annotated[
        Path | None, typer.Option(help="New file for base and adapter merged, as it is served.")
    ] = None,
    merged: Annotated[
        Path | None,
        typer.Option(help="New folder for base and adapter merged, in transformers format."),
    ] = None,
    folder: ModelFiles = Path("models"),
    bases: Bases = Path(".ratchet/bases"),
    object_store: Objects = ".ratchet/objects",
    registry: Registry = DEFAULT_REGISTRY,
    token: Token = None,
    state: State = DEFAULT_STATE,
    json: Json = False,
) -> None:
    """Write a version to files for other tools. Every file of the adapter is verified by its
    digest, and existing files are never overwritten.
    """
    destinations = {"adapter": adapter, "gguf": gguf, "merged": merged}
    wanted = {form: path for form, path in destinations.items() if path is not None}
    if not wanted:
        raise CommandRefused("name what to write: --adapter, --gguf or --merged")
    if existing := [str(path) for path in wanted.values() if path.exists() or path.is_symlink()]:
        raise CommandRefused(
            f"{', '.join(existing)} exists and would be overwritten; choose another path"
        )
    model, slash, name = version.partition("/")
    if not slash or not name:
        raise CommandRefused(f"{version}: expected MODEL/VERSION, such as support/v3")
    base = load_models(folder).require(model).base
    with RegistryClient(registry, token_for(registry, state, token)) as client:
        shown = client.get(f"/api/models/{quote(model)}/versions/{quote(name, safe='')}")
    with _adapter_folder(FsspecStore(object_store), object_store, shown) as files:
        if files is None and (adapter or merged):
            raise CommandRefused(f"{version} is the base itself and has no adapter; use --gguf")
        if gguf:
            _write_gguf(bases / base.serving, files, gguf, shown["digest"])
        if merged:
            digest = shown["base_digest"]
            _write_merged(bases, base.training, digest, files, merged)
        if adapter and files:
            _copy(files, adapter)
    if json:
        console.print_json({"version": version, "files": wanted})
    else:
        for form, path in wanted.items():
            console.out.print(f"wrote {form} of {version}: {path}", highlight=False)


@contextmanager
def _adapter_folder(
    store: FsspecStore, location: str, shown: dict[str, Any]
) -> Iterator[Path | None]:
    """Yield a temporary folder with the verified adapter and its card; None for the base."""
    if shown["removed_at"]:
        raise CommandRefused(
            f"the adapter of {shown['version']} was removed on {shown['removed_at']}: "
            f"{shown['removed_reason']}"
        )
    if shown["adapter"] is None:
        yield None
        return
    artefact = Artefact.model_validate(shown["adapter"])
    try:
        files = dict(read_adapter(store, artefact).files)
    except ObjectNotFound as error:
        raise ObjectNotFound(
            f"{error}; --object-store {location} is not the registry's, or the object was deleted"
        ) from error
    card = f"{artefact.uri.rpartition('/')[0]}/{MODEL_CARD}"
    if store.exists(card):
        files[MODEL_CARD] = store.get(card)
    with TemporaryDirectory() as temporary:
        for name, data in files.items():
            (Path(temporary) / name).write_bytes(data)
        yield Path(temporary)


def _copy(files: Path, to: Path) -> None:
    """Copy a folder; `to` appears only when complete."""
    to.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".export-", dir=to.parent) as temporary:
        partial = Path(temporary) / to.name
        shutil.copytree(files, partial)
        partial.rename(to)


def _write_gguf(base: Path, adapter: Path | None, to: Path, deployed: str | None) -> None:
    """Write the merged file. Raises InvalidArtefact if it differs from the deployed one."""
    to.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".export-", dir=to.parent) as temporary:
        partial = Path(temporary) / to.name
        options = ("--adapter", str(adapter)) if adapter else ()
        digest = _run("services.registry.gguf", str(base), str(partial), *options).strip()
        if deployed and digest != deployed:
            raise InvalidArtefact(
                f"the merged file has digest {digest}, and the registry deployed {deployed}: "
                f"{base} is not the file that the registry merged"
            )
        partial.rename(to)


def _write_merged(bases: Path, training: str, digest: str, adapter: Path | None, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".export-", dir=to.parent) as temporary:
        partial = Path(temporary) / to.name
        arguments = (str(bases), training, digest, str(adapter), str(partial))
        _run("services.trainer.training.merged_base", *arguments)
        partial.rename(to)


def _run(module: str, *arguments: str) -> str:
    """Run a module of a service in a process of its own, and return its output."""
    command = module_command(module, *arguments)
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        last_line = (process.stderr.strip().splitlines() or ["no output"])[-1]
        raise CommandRefused(f"nothing was written: {last_line}")
    return process.stdout
