"""Withdrawal mark next to a snapshot's manifest: the IDs of its withdrawn examples.

The snapshot itself never changes. A mark is information for people who inspect the object store.
The topic `dataset.withdrawals` is authoritative, and marks can be made again from it.
"""

from collections.abc import Collection

from shared.errors import ObjectNotFound, Undecodable
from shared.events import Artefact, FrozenModel, Id
from shared.storage.object_store import ObjectStore, canonical_json


class WithdrawalMark(FrozenModel):
    """The sorted IDs of all examples ever withdrawn from a snapshot. It names no user."""

    batch_id: Id
    feedback_ids: tuple[Id, ...]


def mark_key(manifest: Artefact) -> str:
    """Key of a snapshot's mark in the object store."""
    return manifest.uri.removesuffix(".json") + ".withdrawn.json"


def read_mark(store: ObjectStore, manifest: Artefact) -> WithdrawalMark | None:
    """Read the mark of a snapshot; None if nothing was withdrawn from it. Raises Undecodable if it
    was altered, StorageUnavailable.
    """
    try:
        return WithdrawalMark.model_validate_json(store.get(mark_key(manifest)))
    except ObjectNotFound:
        return None
    except ValueError as error:
        raise Undecodable(f"{mark_key(manifest)} is not a withdrawal mark: {error}") from error


def add_to_mark(
    store: ObjectStore, manifest: Artefact, batch_id: Id, feedback_ids: Collection[Id]
) -> None:
    """Mark examples of a snapshot as withdrawn, in addition to those already marked. Idempotent.
    Raises StorageUnavailable.
    """
    try:
        before = read_mark(store, manifest)
    except Undecodable:
        before = None
    marked = {*feedback_ids, *(before.feedback_ids if before else ())}
    mark = WithdrawalMark(batch_id=batch_id, feedback_ids=tuple(sorted(marked)))
    if mark != before:
        store.put(mark_key(manifest), canonical_json(mark.model_dump(mode="json")))
