"""Entries as they are found after a crash, made whole: batches that some members do not know of, answers that later feedback changed.

A crash can fall between the entries of one batch, and a worker that was paused longer than its session can wake up and write
older entries over newer ones, over all those of a batch if it comes to that. Both leave a batch with places that no entry fills. The
batch's own record says that it was closed, and its manifest names every member; those that still stand as waiting, from before the
batch was closed, are its members. In the same way an example can stand as waiting although later feedback on its answer has taken its
place; the entry of that feedback is there, or it will be decided again.
"""

from collections.abc import Callable, Collection, Iterator

from shared.entries import ClosedBatch, Entry, Membership, TableState
from shared.events import Artefact
from shared.snapshots import Manifest

Group = tuple[str, int]
"""A model and a shard."""


def grouped(state: TableState) -> dict[Group, TableState]:
    """What the table says of each model and shard."""
    groups: dict[Group, tuple[list[Entry], list[ClosedBatch]]] = {}
    for entry in state.entries:
        groups.setdefault((entry.model, entry.shard), ([], []))[0].append(entry)
    for batch in state.batches:
        groups.setdefault((batch.model, batch.shard), ([], []))[1].append(batch)
    return {group: TableState(tuple(entries), tuple(batches)) for group, (entries, batches) in groups.items()}


def perhaps_unannounced(state: TableState) -> ClosedBatch | None:
    """The newest batch of a model and shard that is on record, if none of its members knows of it: the crash may have been between the
    record and the announcement."""
    newest = max(state.batches, key=lambda batch: batch.number, default=None)
    if newest is None or any(entry.batch is not None and entry.batch.number == newest.number for entry in state.entries):
        return None
    return newest


def completed(state: TableState, read: Callable[[Artefact], Manifest]) -> list[Entry]:
    """The entries, of one model and shard, that have to be written again. `read` is asked only for batches that may lack members."""
    batches: dict[int, Membership] = {batch.number: batch.membership(0) for batch in state.batches}
    filled: dict[int, int] = {}
    waiting: dict[str, Entry] = {}
    for entry in state.entries:
        if entry.batch is not None:
            batches[entry.batch.number] = entry.batch
            filled[entry.batch.number] = filled.get(entry.batch.number, 0) + 1
        elif entry.waits:
            waiting[entry.feedback_id] = entry
    repaired: list[Entry] = []
    for number, batch in sorted(batches.items()):
        if filled.get(number) == batch.size or not any(entry.source.offset <= batch.closed for entry in waiting.values()):
            continue
        for place, feedback_id in enumerate(read(batch.manifest).feedback_ids):
            if feedback_id in waiting and waiting[feedback_id].source.offset <= batch.closed:
                repaired.append(waiting.pop(feedback_id).joined(batch.model_copy(update={"place": place})))
    return repaired + [entry.revoked_by("superseded", offset) for entry, offset in _superseded(state.entries, waiting.values())]


def _superseded(entries: Collection[Entry], waiting: Collection[Entry]) -> Iterator[tuple[Entry, int]]:
    """Of those that wait, the ones that later feedback on the same answer has replaced, with the offset of the first such."""
    offsets: dict[str, list[int]] = {}
    for entry in entries:
        if entry.answer_id is not None and entry.reason not in ("late", "corrected"):
            offsets.setdefault(entry.answer_id, []).append(entry.source.offset)
    for entry in waiting:
        later = [offset for offset in offsets.get(entry.answer_id or "", ()) if offset > entry.source.offset]
        if later:
            yield entry, min(later)
