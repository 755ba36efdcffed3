"""`ratchet dataset`: import datasets; list, show, export and verify batches and datasets."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from pydantic_core import from_json
from rich.markdown import Markdown

from ratchet import console
from ratchet.dataset.exporting import Format, export
from ratchet.dataset.importing import import_file
from ratchet.dataset.lookup import (
    batch_references,
    find_batch,
    is_imported_reference,
    read_announced_batches,
)
from ratchet.dataset.verifying import verify_batches
from ratchet.dataset.waiting import show_waiting
from ratchet.options import DEFAULT_BOOTSTRAP_SERVERS, Bootstrap, Json, security_from_environment
from shared.errors import Misconfigured, ObjectNotFound
from shared.events import Artefact, BatchReady
from shared.storage.imported_datasets import find_imported, imported_datasets
from shared.storage.object_store import FsspecStore, ObjectStore, get_verified
from shared.storage.snapshots import EXAMPLE_KINDS, BatchManifest, ExampleKind, read_manifest

dataset = typer.Typer(
    no_args_is_help=True,
    help="Import datasets; show what waits; list, show, export and verify batches.",
)
dataset.command("import")(import_file)
dataset.command("waiting")(show_waiting)

Batch = Annotated[
    str | None,
    typer.Argument(
        help="A batch's ID, a prefix of it, model/number, or model#shard/number; for an imported "
        "dataset model@ID or model@ and a prefix of its ID."
    ),
]
ManifestUri = Annotated[
    str | None,
    typer.Option(
        "--manifest", help="The manifest's key in the object store. Finds the batch without Kafka."
    ),
]
ManifestDigest = Annotated[
    str | None, typer.Option("--digest", help="The manifest's digest, sha256:...")
]
Objects = Annotated[
    str,
    typer.Option(
        "--object-store", envvar="RATCHET_OBJECT_STORE", help="A folder or an fsspec URL."
    ),
]

_OBJECTS = ".ratchet/objects"


@dataset.command("list")
def list_batches(
    model: str,
    imported: Annotated[
        bool, typer.Option("--imported", help="List the imported datasets, without Kafka.")
    ] = False,
    object_store: Objects = _OBJECTS,
    bootstrap_servers: Bootstrap = DEFAULT_BOOTSTRAP_SERVERS,
    json: Json = False,
) -> None:
    """Show the batches of a model, oldest first, or its imported datasets."""
    if imported:
        _list_imported(_opened(object_store), model, json=json)
        return
    batches = [
        batch
        for batch in asyncio.run(
            read_announced_batches(bootstrap_servers, security_from_environment())
        )
        if batch.model == model
    ]
    batches.sort(key=lambda batch: (batch.shard, batch.number))
    if json:
        console.print_json(batches)
        return
    columns = ("batch", "id", "closed", *EXAMPLE_KINDS)
    rows = [
        (
            batch_references(batch)[1],
            batch.batch_id[:12],
            f"{batch.occurred_at:%Y-%m-%d %H:%M}",
            *batch.counts.model_dump().values(),
        )
        for batch in batches
    ]
    console.print_table(columns, rows)


@dataset.command("show")
def show(
    batch: Batch = None,
    manifest: ManifestUri = None,
    digest: ManifestDigest = None,
    object_store: Objects = _OBJECTS,
    bootstrap_servers: Bootstrap = DEFAULT_BOOTSTRAP_SERVERS,
    json: Json = False,
) -> None:
    """Show the report of a batch: sources, dropped events with reasons, rewards, some examples."""
    store = _opened(object_store)
    batch_manifest = _read(store, _claim(store, batch, manifest, digest, bootstrap_servers)[0])
    if json:
        console.print_json(
            from_json(get_verified(store, batch_manifest.report))
            if batch_manifest.report
            else batch_manifest
        )
    elif batch_manifest.page is None:
        _show_manifest(batch_manifest)
    else:
        page = get_verified(store, batch_manifest.page).decode()
        if console.out.is_terminal:
            console.out.print(Markdown(page))
        else:
            console.out.print(page, end="", markup=False, highlight=False, soft_wrap=True)


@dataset.command("export")
def export_batch(
    to: Annotated[Path, typer.Option(help="Folder to write to. It is created if missing.")],
    batch: Batch = None,
    kind: Annotated[
        ExampleKind | None, typer.Option(help="Export only examples of this kind.")
    ] = None,
    format: Annotated[
        Format, typer.Option(help="As stored; for TRL and OpenAI fine-tuning; or in columns.")
    ] = "jsonl",
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files.")] = False,
    manifest: ManifestUri = None,
    digest: ManifestDigest = None,
    object_store: Objects = _OBJECTS,
    bootstrap_servers: Bootstrap = DEFAULT_BOOTSTRAP_SERVERS,
    json: Json = False,
) -> None:
    """Export the data of a batch to files for other tools."""
    store = _opened(object_store)
    batch_manifest = _read(store, _claim(store, batch, manifest, digest, bootstrap_servers)[0])
    exported = export(
        store, batch_manifest, to, (kind,) if kind else EXAMPLE_KINDS, format, force=force
    )
    if json:
        console.print_json(
            [{"kind": file.kind, "examples": file.examples, "path": file.path} for file in exported]
        )
    else:
        console.print_table(
            ("kind", "examples", "file"),
            [(file.kind, file.examples, file.path) for file in exported],
        )


@dataset.command("verify")
def verify_batch(
    batch: Batch = None,
    whole_chain: Annotated[
        bool, typer.Option("--all", help="Also verify all earlier batches.")
    ] = False,
    manifest: ManifestUri = None,
    digest: ManifestDigest = None,
    object_store: Objects = _OBJECTS,
    bootstrap_servers: Bootstrap = DEFAULT_BOOTSTRAP_SERVERS,
    json: Json = False,
) -> None:
    """Verify a batch: objects, digests, counts, IDs, and the chain of earlier batches. The exit
    status is 1 if anything is wrong.
    """
    store = _opened(object_store)
    claim, announcement = _claim(store, batch, manifest, digest, bootstrap_servers)
    verified = verify_batches(store, claim, announcement, whole_chain=whole_chain)
    if json:
        console.print_json(
            {"whole": not verified.faults, "batches": verified.batches, "faults": verified.faults}
        )
    else:
        for fault in verified.faults:
            console.out.print(
                f"{fault.batch}: {fault.what}\n    {fault.advice}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
        summary = f"{len(verified.faults)} faults" if verified.faults else "no faults"
        console.out.print(f"batches verified: {len(verified.batches)}; {summary}", highlight=False)
    if verified.faults:
        raise typer.Exit(1)


def _claim(
    store: ObjectStore,
    batch: str | None,
    manifest: str | None,
    digest: str | None,
    bootstrap_servers: str,
) -> tuple[Artefact, BatchReady | None]:
    """Return the manifest that the arguments name, and the announcement of a batch looked up on
    Kafka.
    """
    if (batch is None) == (manifest is None) or (manifest is None) != (digest is None):
        raise typer.BadParameter("name a batch, or give --manifest URI with --digest D")
    if batch is not None and is_imported_reference(batch):
        return find_imported(store, batch), None
    if batch is not None:
        announced = find_batch(
            asyncio.run(read_announced_batches(bootstrap_servers, security_from_environment())),
            batch,
        )
        return announced.manifest, announced
    try:
        return Artefact.model_validate({"uri": manifest, "digest": digest}), None
    except ValidationError as error:
        raise typer.BadParameter(
            "expected sha256: and 64 hexadecimal digits", param_hint="--digest"
        ) from error


def _list_imported(store: ObjectStore, model: str, *, json: bool) -> None:
    manifests = {
        artefact.uri: read_manifest(store, artefact) for artefact in imported_datasets(store, model)
    }
    if json:
        console.print_json(
            [
                {"id": each.batch_id, "manifest": uri, "counts": each.counts, "lane": each.lane}
                for uri, each in manifests.items()
            ]
        )
        return
    console.print_table(
        ("dataset", "lane", *EXAMPLE_KINDS),
        [
            (f"{model}@{each.batch_id[:12]}", each.lane, *each.counts.model_dump().values())
            for each in manifests.values()
        ],
    )


def _opened(object_store: str) -> ObjectStore:
    try:
        return FsspecStore(object_store)
    except (ImportError, ValueError) as error:
        raise Misconfigured(
            f"RATCHET_OBJECT_STORE, {object_store!r}, cannot be opened: {error}"
        ) from error


def _read(store: ObjectStore, artefact: Artefact) -> BatchManifest:
    try:
        return read_manifest(store, artefact)
    except ObjectNotFound as error:
        raise ObjectNotFound(
            f"{error}; does RATCHET_OBJECT_STORE (--object-store) name "
            "the store that holds its snapshots?"
        ) from error


def _show_manifest(manifest: BatchManifest) -> None:
    """Print the manifest of a batch that was written before reports existed."""
    rows = [
        ("batch", f"{manifest.model}#{manifest.shard}/{manifest.number}"),
        ("id", manifest.batch_id),
        *((kind, getattr(manifest.counts, kind)) for kind in EXAMPLE_KINDS),
        *((f"dropped: {reason}", count) for reason, count in sorted(manifest.dropped.items())),
        *(
            (f"{span.topic}-{span.partition}", f"offsets {span.first} to {span.last}")
            for span in manifest.offsets
        ),
        ("mean reward", f"{manifest.mean_reward:+.2f}"),
    ]
    console.print_table(("written before reports existed", ""), rows)
