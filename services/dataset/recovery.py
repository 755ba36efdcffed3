"""Entries as they are found after a crash, made whole: batches that some members do not know of, answers that later feedback changed.

A crash can fall between the entries of one batch, and a worker that was paused longer than its session can wake up and write
older entries over newer ones, over all those of a batch if it comes to that. Both leave a batch with places that no entry fills. The
batch's own record says that it was closed, and its manifest names every member; those that still stand as waiting, from before the
batch was closed, are its members. In the same way an example can stand as waiting although later feedback on its answer has taken its
place, or its user's feedback was withdrawn; the entry of that event is there, or it will be decided again.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from services.dataset.curation import user_of
from shared.entries import ClosedBatch, Entry, Membership, Reason, TableState
from shared.events import Artefact
from shared.identity import user_digest
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
    repaired += _dropped(state.entries, waiting.values())
    return _without_the_forgotten(state.entries, repaired)


def newest_members(entries: Collection[Entry]) -> list[Entry]:
    """Those of the entries that are members of the newest batch."""
    number = max((entry.batch.number for entry in entries if entry.batch), default=None)
    return [entry for entry in entries if entry.batch and entry.batch.number == number]


def _dropped(entries: Collection[Entry], waiting: Collection[Entry]) -> Iterator[Entry]:
    """Those that wait but were dropped, for later feedback on the same answer or by a withdrawal; whichever came first."""
    superseded = {entry.feedback_id: offset for entry, offset in _superseded(entries, waiting)}
    withdrawals = _withdrawals(entries)
    for entry in waiting:
        since: list[tuple[int, Reason]] = [(offset, "withdrawn") for offset in _later(entry, withdrawals)]
        if entry.feedback_id in superseded:
            since.append((superseded[entry.feedback_id], "superseded"))
        if since:
            offset, reason = min(since)
            yield entry.revoked_by(reason, offset)


def _without_the_forgotten(entries: Collection[Entry], repaired: Collection[Entry]) -> list[Entry]:
    """`repaired`, and besides the entries that still say something of a user whose feedback was withdrawn; all as they say nothing."""
    withdrawals = _withdrawals(entries)
    if not withdrawals:
        return list(repaired)
    newest = {entry.feedback_id: entry for entry in (*entries, *repaired)}
    forgotten = {name: entry.forgotten() for name, entry in newest.items() if _later(entry, withdrawals)}
    return list(({entry.feedback_id: entry for entry in repaired} | forgotten).values())


def _withdrawals(entries: Iterable[Entry]) -> dict[str, list[int]]:
    """The offsets at which each user's feedback was withdrawn."""
    withdrawals: dict[str, list[int]] = {}
    for entry in entries:
        if entry.withdraws is not None:
            withdrawals.setdefault(entry.withdraws, []).append(entry.source.offset)
    return withdrawals


def _later(entry: Entry, withdrawals: Mapping[str, list[int]]) -> list[int]:
    """Those of the withdrawals that an entry falls under."""
    user = user_of(entry.influence) if withdrawals else None
    if user is None:
        return []
    return [offset for offset in withdrawals.get(user_digest(user), ()) if offset > entry.source.offset]


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
