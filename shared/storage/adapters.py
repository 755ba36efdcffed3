"""Adapters in the object store: a folder in PEFT's layout and, written last, `manifest.json` with
the digest of each file and of the base model.

The trainer writes them, the trainer and the registry read them, the registry removes them; an
`Artefact` of an adapter refers to its manifest. The model card, `README.md`, is for people. It
includes evaluation results, which are available after the digests and may change, so the manifest
does not list it.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from shared.errors import InvalidArtefact, ObjectNotFound
from shared.events import Artefact, Digest, FrozenModel
from shared.identity import digest_of
from shared.storage.base_projections import layer_counts, read_tensor_shapes
from shared.storage.keys import FileName
from shared.storage.object_store import ObjectStore, canonical_json, get_verified

MANIFEST = "manifest.json"
CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
MODEL_CARD = "README.md"
_FIRST = ".lora_A.weight"


class AdapterManifest(FrozenModel):
    """The files of an adapter with their digests. `base_digest` is that of the base's
    model.safetensors.
    """

    files: dict[FileName, Digest]
    base_digest: Digest


@dataclass(frozen=True)
class Adapter:
    """The files of an adapter by name, each verified against its digest."""

    files: Mapping[str, bytes]
    base_digest: Digest


def adapter_folder(model: str, run_id: str) -> str:
    """Return the folder that a run's adapter is written to."""
    return f"adapters/{model}/{run_id}"


def adapter_files(folder: Path) -> dict[str, bytes]:
    """Return the files of an adapter that is in a local folder, by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def adapted_projections(folder: Path) -> dict[str, int]:
    """Count the layers of each projection that an adapter in a local folder changes; empty if its
    weights cannot be read.
    """
    try:
        names = read_tensor_shapes(folder / WEIGHTS)
    except (OSError, ValueError):
        return {}
    return layer_counts(name.removesuffix(_FIRST) for name in names if name.endswith(_FIRST))


def write_adapter(
    store: ObjectStore, key_prefix: str, files: Mapping[str, bytes], base_digest: Digest
) -> Artefact:
    """Write the files under `key_prefix`, then their manifest; return the artefact of the manifest.

    Idempotent.
    """
    prefix = key_prefix.rstrip("/")
    for name in sorted(files):
        store.put(f"{prefix}/{name}", files[name])
    return store.put(f"{prefix}/{MANIFEST}", _manifest(files, base_digest))


def adapter_digest(files: Mapping[str, bytes], base_digest: Digest) -> Digest:
    """Return the digest of the artefact that `write_adapter` returns for these files."""
    return digest_of(_manifest(files, base_digest))


def _manifest(files: Mapping[str, bytes], base_digest: Digest) -> bytes:
    digests = {name: digest_of(files[name]) for name in sorted(files)}
    manifest = AdapterManifest(files=digests, base_digest=base_digest)
    return canonical_json(manifest.model_dump(mode="json"))


def read_adapter(store: ObjectStore, artefact: Artefact) -> Adapter:
    """Read the adapter of an artefact and verify every file.

    Raises ObjectNotFound when a file is missing, DigestMismatch when a file was altered,
    InvalidArtefact when the artefact is not an adapter's manifest.
    """
    try:
        manifest = AdapterManifest.model_validate_json(get_verified(store, artefact))
    except ValidationError as error:
        raise InvalidArtefact(f"{artefact.uri} is not an adapter's manifest: {error}") from error
    folder = artefact.uri.rpartition("/")[0]
    files = {
        name: get_verified(store, Artefact(uri=f"{folder}/{name}", digest=digest))
        for name, digest in manifest.files.items()
    }
    return Adapter(files, manifest.base_digest)


def remove_adapter(store: ObjectStore, uri: str) -> int:
    """Remove the adapter whose manifest is at `uri`, including its card; return the number of
    removed objects.

    The manifest is removed last, so that an interrupted removal can be repeated. Files that the
    manifest does not list stay.
    """
    folder = uri.rpartition("/")[0]
    names = {CONFIG, WEIGHTS, MODEL_CARD}
    # Without a readable manifest, remove the files that trainers always write.
    with suppress(ObjectNotFound, ValidationError):
        names |= set(AdapterManifest.model_validate_json(store.get(uri)).files)
    keys = [f"{folder}/{name}" for name in sorted(names) if "/" not in name]
    existing = [key for key in [*keys, uri] if store.exists(key)]
    for key in existing:
        store.delete(key)
    return len(existing)
