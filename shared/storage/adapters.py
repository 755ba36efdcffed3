"""What an adapter is in the object store: a folder in PEFT's conventions and, written last,
`manifest.json` that names each file's digest and the digest of the base that the adapter belongs
to.

The trainer writes them, the trainer and the registry read them, the registry removes them; an
`Artefact` of an adapter names its manifest. The model card, `README.md`, is for people: it also
says how the adapter was judged, which is known later than the digests and may be said anew, so the
manifest does not name it.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from pydantic import ValidationError

from shared.errors import InvalidArtefact, ObjectNotFound
from shared.events import Artefact, Digest, FrozenModel
from shared.storage.object_store import ObjectStore, canonical_json, get_verified

MANIFEST = "manifest.json"
CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
MODEL_CARD = "README.md"


class AdapterManifest(FrozenModel):
    """The files of an adapter with their digests. `base_digest` is that of the base's
    model.safetensors.
    """

    files: dict[str, Digest]
    base_digest: Digest


@dataclass(frozen=True)
class Adapter:
    """An adapter's files by name, each checked against its digest."""

    files: Mapping[str, bytes]
    base_digest: Digest


def adapter_folder(model: str, run_id: str) -> str:
    """The folder that a run's adapter is written to."""
    return f"adapters/{model}/{run_id}"


def write_adapter(
    store: ObjectStore, key_prefix: str, files: Mapping[str, bytes], base_digest: Digest
) -> Artefact:
    """Write the files under `key_prefix` and then their manifest; the artefact of the manifest.
    Writing the same again is harmless.
    """
    prefix = key_prefix.rstrip("/")
    digests = {name: store.put(f"{prefix}/{name}", files[name]).digest for name in sorted(files)}
    manifest = AdapterManifest(files=digests, base_digest=base_digest)
    return store.put(f"{prefix}/{MANIFEST}", canonical_json(manifest.model_dump(mode="json")))


def read_adapter(store: ObjectStore, artefact: Artefact) -> Adapter:
    """The adapter behind an artefact, every file verified.

    Raises Missing when a part is not there, Corrupt when a part was altered, Unusable when the
    artefact is no adapter's manifest.
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
    """Remove the adapter whose manifest is at `uri`, its card included; how many objects were
    there. The manifest goes last, so that one that was cut off in the middle can be removed again.
    What the manifest does not name stays.
    """
    folder = uri.rpartition("/")[0]
    names = {CONFIG, WEIGHTS, MODEL_CARD}
    with suppress(
        ObjectNotFound, ValidationError
    ):  # it was removed already, or is no manifest: the names that trainers give are known
        names |= set(AdapterManifest.model_validate_json(store.get(uri)).files)
    keys = [f"{folder}/{name}" for name in sorted(names) if "/" not in name]
    there = [key for key in [*keys, uri] if store.exists(key)]
    for key in there:
        store.delete(key)
    return len(there)
