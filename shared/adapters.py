"""What an adapter is in the object store: a folder in PEFT's conventions and, written last, `manifest.json` that names each file's
digest and the digest of the base that the adapter belongs to.

The trainer writes them, the trainer and the registry read them; an `Artefact` of an adapter names its manifest.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from shared.errors import Unusable
from shared.events import Artefact, Digest, Value
from shared.storage import ObjectStore, canonical_json, get_verified

MANIFEST = "manifest.json"
CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


class AdapterManifest(Value):
    """The files of an adapter with their digests. `base_digest` is that of the base's model.safetensors."""

    files: dict[str, Digest]
    base_digest: Digest


@dataclass(frozen=True)
class Adapter:
    """An adapter's files by name, each checked against its digest."""

    files: Mapping[str, bytes]
    base_digest: Digest


def write_adapter(store: ObjectStore, key_prefix: str, files: Mapping[str, bytes], base_digest: Digest) -> Artefact:
    """Write the files under `key_prefix` and then their manifest; the artefact of the manifest. Writing the same again is harmless."""
    prefix = key_prefix.rstrip("/")
    digests = {name: store.put(f"{prefix}/{name}", files[name]).digest for name in sorted(files)}
    manifest = AdapterManifest(files=digests, base_digest=base_digest)
    return store.put(f"{prefix}/{MANIFEST}", canonical_json(manifest.model_dump(mode="json")))


def read_adapter(store: ObjectStore, artefact: Artefact) -> Adapter:
    """The adapter behind an artefact, every file verified.

    Raises Missing when a part is not there, Corrupt when a part was altered, Unusable when the artefact is no adapter's manifest.
    """
    try:
        manifest = AdapterManifest.model_validate_json(get_verified(store, artefact))
    except ValidationError as error:
        raise Unusable(f"{artefact.uri} is not an adapter's manifest: {error}") from error
    folder = artefact.uri.rpartition("/")[0]
    files = {name: get_verified(store, Artefact(uri=f"{folder}/{name}", digest=digest)) for name, digest in manifest.files.items()}
    return Adapter(files, manifest.base_digest)
