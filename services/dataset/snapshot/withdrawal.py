"""A user's examples in the snapshots that are written: found, marked, and announced as withdrawn.

Snapshots never change, so that every batch stays reproducible from its manifest. What is withdrawn
is said beside them.
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
"""Every preference stands among the training examples as well."""

MAX_IDS_PER_EVENT = 500
"""In one event, whose ids may have 256 characters each: Kafka takes a megabyte as it comes."""


@dataclass(frozen=True, slots=True)
class MarkedExamples:
    """A user's examples in a shard's snapshots, newest batch first; and what could not be read."""

    batches: tuple[WithdrawnBatch, ...]
    unread: tuple[str, ...]


def mark_examples(
    store: ObjectStore, newest: Artefact | None, user_id: str, progressed: Callable[[], object]
) -> MarkedExamples:
    """Search the snapshots from the newest manifest back, and mark those that have examples of a
    user.

    Work grows with all that was ever written; `progressed` is called for each snapshot. An earlier
    one that is no longer there ends the history, since old ones may be deleted. Doing it again
    changes nothing. Raises StorageUnavailable.
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
    """The events that answer a request, each of a size that the bus takes; a function of the
    request and of what it found.
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
    """The ids of a user's examples in one snapshot. What cannot be read is added to `unread`."""
    for kind in SEARCHED_KINDS:
        try:
            examples = read_examples(store, manifest, kind)
        except (ObjectNotFound, DigestMismatch, ValueError):
            unread += [file.artefact.uri for file in manifest.files if file.kind == kind]
            continue
        yield from (example.feedback_id for example in examples if example.user_id == user_id)


def _parts(batches: tuple[WithdrawnBatch, ...]) -> Iterator[tuple[WithdrawnBatch, ...]]:
    """Batches in groups of at most `MOST_IDS` ids; a larger one is split."""
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
