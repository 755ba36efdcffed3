"""The mark beside a snapshot's manifest: which of its examples were withdrawn.

The snapshot itself stays as it was written. A mark is for whoever looks into the object store; what
counts is said in `dataset.withdrawals`, from which it could be made again.
"""

from collections.abc import Collection

from shared.errors import ObjectNotFound, Undecodable
from shared.events import Artefact, FrozenModel, Id
from shared.storage.object_store import ObjectStore, canonical_json


class WithdrawalMark(FrozenModel):
    """One object for each snapshot: the ids of all that was ever withdrawn of it, in their order as
    strings. It names no user.
    """

    batch_id: Id
    feedback_ids: tuple[Id, ...]


def mark_key(manifest: Artefact) -> str:
    """Where the mark of a snapshot lies, if it has one."""
    return manifest.uri.removesuffix(".json") + ".withdrawn.json"


def read_mark(store: ObjectStore, manifest: Artefact) -> WithdrawalMark | None:
    """None when nothing of the snapshot was withdrawn. Raises Undecodable when it was altered,
    StorageUnavailable.
    """
    try:
        return WithdrawalMark.model_validate_json(store.get(mark_key(manifest)))
    except ObjectNotFound:
        return None
    except ValueError as error:
        raise Undecodable(f"{mark_key(manifest)} is not a mark: {error}") from error


def add_to_mark(
    store: ObjectStore, manifest: Artefact, batch_id: Id, feedback_ids: Collection[Id]
) -> None:
    """Mark some examples of a snapshot as withdrawn, besides those that are. Doing it again changes
    nothing. Raises StorageUnavailable.
    """
    try:
        before = read_mark(store, manifest)
    except Undecodable:
        before = None
    marked = {*feedback_ids, *(before.feedback_ids if before else ())}
    mark = WithdrawalMark(batch_id=batch_id, feedback_ids=tuple(sorted(marked)))
    if mark != before:
        store.put(mark_key(manifest), canonical_json(mark.model_dump(mode="json")))
