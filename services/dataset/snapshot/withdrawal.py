"""Withdrawal of a user's examples from snapshots: search, marks and announcement.

Snapshots never change, so that every batch stays reproducible from its manifest. Withdrawn examples
are marked in separate objects.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from services.dataset.snapshot.withdrawal_marks import add_to_mark
from shared.errors import DigestMismatch, ObjectNotFound, Undecodable
from shared.events import Artefact, ExamplesWithdrawn, WithdrawalRequested, WithdrawnBatch
from shared.identity import identity, user_digest
from shared.storage.object_store import ObjectStore
from shared.storage.snapshots import BatchManifest, ExampleKind, read_examples, read_manifest

SEARCHED_KINDS: tuple[ExampleKind, ...] = ("training", "negative", "held_out")
"""Every preference is among the training examples as well."""

MAX_IDS_PER_EVENT = 500
"""IDs have up to 256 characters, and Kafka accepts a record of one megabyte by default."""


@dataclass(frozen=True, slots=True)
class MarkedExamples:
    """A user's examples in a shard's snapshots, newest batch first, and the keys of unreadable
    objects.
    """

    batches: tuple[WithdrawnBatch, ...]
    unread: tuple[str, ...]


def mark_examples(
    store: ObjectStore, newest: Artefact | None, user_id: str, progressed: Callable[[], object]
) -> MarkedExamples:
    """Search the snapshots from the newest manifest backwards, and mark the examples of a user.

    The cost grows with the whole history; `progressed` is called for each snapshot. A missing
    earlier snapshot ends the search, since old ones may be deleted. Idempotent. Raises
    StorageUnavailable.
    """
    batches: list[WithdrawnBatch] = []
    unread: list[str] = []
    artefact = newest
    while artefact is not None:
        progressed()
        try:
            manifest = read_manifest(store, artefact)
        except ObjectNotFound:
            break
        except (DigestMismatch, Undecodable):
            unread.append(artefact.uri)
            break
        if names := tuple(_examples_of(store, manifest, user_id, unread)):
            add_to_mark(store, artefact, manifest.batch_id, names)
            batches.append(
                WithdrawnBatch(
                    batch_id=manifest.batch_id, number=manifest.number, feedback_ids=names
                )
            )
        artefact = manifest.previous
    return MarkedExamples(tuple(batches), tuple(unread))


def withdrawal_events(
    request: WithdrawalRequested, waiting: int, marked: MarkedExamples
) -> list[ExamplesWithdrawn]:
    """Return the events that answer a request, split to the size that Kafka accepts. They are a
    function of the arguments.
    """
    parts = list(_parts(marked.batches)) or [()]
    return [
        ExamplesWithdrawn(
            event_id=identity("withdrawn", request.event_id, part),
            occurred_at=request.occurred_at,
            model=request.model,
            shard=request.shard,
            user=user_digest(request.user_id),
            forgotten=request.forgotten,
            received=request.received,
            reason=request.reason,
            waiting=waiting,
            batches=batches,
            unread=marked.unread,
            part=part,
            parts=len(parts),
        )
        for part, batches in enumerate(parts)
    ]


def _examples_of(
    store: ObjectStore, manifest: BatchManifest, user_id: str, unread: list[str]
) -> Iterator[str]:
    """Yield the IDs of a user's examples in a snapshot. Adds unreadable objects to `unread`."""
    for kind in SEARCHED_KINDS:
        try:
            examples = read_examples(store, manifest, kind)
        except (ObjectNotFound, DigestMismatch, ValueError):
            unread += [file.artefact.uri for file in manifest.files if file.kind == kind]
            continue
        yield from (example.feedback_id for example in examples if example.user_id == user_id)


def _parts(batches: tuple[WithdrawnBatch, ...]) -> Iterator[tuple[WithdrawnBatch, ...]]:
    """Yield batches in groups of at most `MAX_IDS_PER_EVENT` IDs. A larger batch is split."""
    group: list[WithdrawnBatch] = []
    size = 0
    for batch in batches:
        for at in range(0, len(batch.feedback_ids), MAX_IDS_PER_EVENT):
            piece = batch.model_copy(
                update={"feedback_ids": batch.feedback_ids[at : at + MAX_IDS_PER_EVENT]}
            )
            if size + len(piece.feedback_ids) > MAX_IDS_PER_EVENT:
                yield tuple(group)
                group, size = [], 0
            group.append(piece)
            size += len(piece.feedback_ids)
    if group:
        yield tuple(group)
