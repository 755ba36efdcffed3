"""Look-up of imported datasets in the object store."""

import re
from pathlib import PurePosixPath

from shared.errors import CommandRefused
from shared.events import Artefact
from shared.storage.object_store import ObjectStore
from shared.storage.snapshots import manifests_folder

_MANIFEST = re.compile(r"[0-9a-f]{64}\.json")


def imported_datasets(store: ObjectStore, model: str) -> list[Artefact]:
    """Return the manifests of a model's imported datasets, in the order of their IDs. Raises
    StorageUnavailable.
    """
    return [
        Artefact(uri=key, digest=f"sha256:{PurePosixPath(key).stem}")
        for key in store.list_keys(manifests_folder(model))
        if _MANIFEST.fullmatch(PurePosixPath(key).name)
    ]


def dataset_id_of(manifest: Artefact) -> str:
    """Return the ID of an imported dataset from the key of its manifest."""
    return PurePosixPath(manifest.uri).parent.name


def find_imported(store: ObjectStore, reference: str) -> Artefact:
    """Return the manifest of the imported dataset `model@ID` or `model@PREFIX`.

    Raises CommandRefused if none or several match.
    """
    model, _, prefix = reference.partition("@")
    matches = [
        artefact
        for artefact in imported_datasets(store, model)
        if dataset_id_of(artefact).startswith(prefix.lower())
    ]
    if len(matches) == 1:
        return matches[0]
    found = "no" if not matches else str(len(matches))
    raise CommandRefused(
        f"{found} imported datasets match {reference!r}; `ratchet dataset list {model} --imported` "
        "lists them"
    )
