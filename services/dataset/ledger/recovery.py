"""Recovery of a shard's entries after a crash or after a stale worker's writes.

A crash can fall between the entries of one batch. A worker that was paused longer than its session
can wake up and write older versions of entries over newer ones, in the worst case of all members of
a batch. Both leave a batch with missing members. The batch's own record shows that it was closed,
and its manifest names every member: entries that still wait, from before the batch closed, are its
members. In the same way an entry can wait although later feedback on its answer superseded it, or
its user's feedback was withdrawn. The entry of that later event is stored, or the event will be
decided again.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from services.dataset.ledger.cached_entry import CachedEntry
from services.dataset.ledger.curation import user_of
from shared.events import Artefact
from shared.identity import user_digest
from shared.storage.dataset_entries import (
    ClosedBatch,
    DatasetEntry,
    EntryReason,
    Membership,
    is_batch_key,
)
from shared.storage.snapshots import BatchManifest

ShardKey = tuple[str, int]
"""A model and a shard."""


@dataclass(frozen=True, slots=True)
class ShardState:
    """Entries and batch records of one model and shard, in any order."""

    entries: list[CachedEntry] = field(default_factory=list)
    batches: list[ClosedBatch] = field(default_factory=list)


def read_state(
    values: Iterable[tuple[bytes, bytes]], owns: Callable[[int], bool]
) -> tuple[dict[ShardKey, ShardState], list[bytes]]:
    """Group the table's values by model and shard. Also return the keys of partitions that this
    worker does not own. Each value is decoded once and kept encoded.
    """
    state: dict[ShardKey, ShardState] = {}
    not_owned: list[bytes] = []
    for key, value in values:
        if is_batch_key(key):
            batch = ClosedBatch.model_validate_json(value)
            if owns(batch.partition):
                state.setdefault((batch.model, batch.shard), ShardState()).batches.append(batch)
                continue
        else:
            entry = DatasetEntry.model_validate_json(value)
            if owns(entry.source.partition):
                state.setdefault((entry.model, entry.shard), ShardState()).entries.append(
                    CachedEntry.of(entry, value)
                )
                continue
        not_owned.append(key)
    return state, not_owned


def find_unannounced_batch(state: ShardState) -> ClosedBatch | None:
    """Return the newest recorded batch if no entry is a member of it: the crash may have fallen
    between its record and its announcement.
    """
    newest = max(state.batches, key=lambda batch: batch.number, default=None)
    if newest is None or any(entry.batch_number == newest.number for entry in state.entries):
        return None
    return newest


def repair_entries(
    state: ShardState, read_manifest: Callable[[Artefact], BatchManifest]
) -> list[DatasetEntry]:
    """Return the entries to write again. `read_manifest` is called only for batches that may lack
    members.
    """
    batches: dict[int, Membership] = {batch.number: batch.membership(0) for batch in state.batches}
    member_counts: dict[int, int] = {}
    waiting: dict[str, CachedEntry] = {}
    for cached_entry in state.entries:
        number = cached_entry.batch_number
        if number is not None:
            member_counts[number] = member_counts.get(number, 0) + 1
            if number not in batches and (membership := cached_entry.entry.batch) is not None:
                batches[number] = membership
        elif cached_entry.is_waiting:
            waiting[cached_entry.feedback_id] = cached_entry
    repaired: list[DatasetEntry] = []
    for number, batch in sorted(batches.items()):
        if member_counts.get(number) == batch.size or not any(
            entry.offset <= batch.closed for entry in waiting.values()
        ):
            continue
        for place, feedback_id in enumerate(read_manifest(batch.manifest).feedback_ids):
            if feedback_id in waiting and waiting[feedback_id].offset <= batch.closed:
                member = waiting.pop(feedback_id).entry
                repaired.append(member.with_membership(batch.model_copy(update={"place": place})))
    repaired += _revoked_entries(state.entries, waiting.values())
    return _with_redactions(state.entries, repaired)


def members_of_newest_batch(entries: Collection[CachedEntry]) -> list[CachedEntry]:
    """Return the entries that are members of the newest batch."""
    numbers = (entry.batch_number for entry in entries if entry.batch_number is not None)
    newest = max(numbers, default=None)
    if newest is None:
        return []
    return [entry for entry in entries if entry.batch_number == newest]


def _revoked_entries(
    entries: Collection[CachedEntry], waiting: Collection[CachedEntry]
) -> Iterator[DatasetEntry]:
    """Yield waiting entries that were superseded or withdrawn, as dropped by the earlier of the
    two events.
    """
    superseded = {
        entry.feedback_id: offset for entry, offset in _superseded_entries(entries, waiting)
    }
    withdrawals = _withdrawal_offsets(entries)
    for cached_entry in waiting:
        causes: list[tuple[int, EntryReason]] = [
            (offset, "withdrawn") for offset in _withdrawals_after(cached_entry, withdrawals)
        ]
        if cached_entry.feedback_id in superseded:
            causes.append((superseded[cached_entry.feedback_id], "superseded"))
        if causes:
            offset, reason = min(causes)
            yield cached_entry.entry.revoked_by(reason, offset)


def _with_redactions(
    entries: Collection[CachedEntry], repaired: Collection[DatasetEntry]
) -> list[DatasetEntry]:
    """Return `repaired` and every other entry that still names a user whose feedback was withdrawn,
    with that user's data erased in all of them.
    """
    withdrawals = _withdrawal_offsets(entries)
    newest = {entry.feedback_id: entry for entry in repaired}
    for cached_entry in entries:
        if _withdrawals_after(cached_entry, withdrawals):
            latest = newest.get(cached_entry.feedback_id, cached_entry.entry)
            newest[cached_entry.feedback_id] = latest.erased()
    return list(newest.values())


def _withdrawal_offsets(entries: Iterable[CachedEntry]) -> dict[str, list[int]]:
    """Offsets of the withdrawal requests by digest of the user."""
    withdrawals: dict[str, list[int]] = {}
    for entry in entries:
        if entry.withdraws is not None:
            withdrawals.setdefault(entry.withdraws, []).append(entry.offset)
    return withdrawals


def _withdrawals_after(entry: CachedEntry, withdrawals: Mapping[str, list[int]]) -> list[int]:
    """Offsets of the withdrawal requests that cover an entry."""
    user = user_of(entry.contributor) if withdrawals else None
    if user is None:
        return []
    return [offset for offset in withdrawals.get(user_digest(user), ()) if offset > entry.offset]


def _superseded_entries(
    entries: Collection[CachedEntry], waiting: Collection[CachedEntry]
) -> Iterator[tuple[CachedEntry, int]]:
    """Yield waiting entries that later feedback on the same answer, or a correction of it by
    another user, has superseded, with the offset of the first such feedback.
    """
    waiting_answers = {entry.answer_id for entry in waiting}
    offsets: dict[str, list[int]] = {}
    for entry in entries:
        if (
            entry.answer_id is not None
            and entry.answer_id in waiting_answers
            and entry.reason not in ("late", "corrected")
        ):
            offsets.setdefault(entry.answer_id, []).append(entry.offset)
    corrected: dict[str, list[int]] = {}
    for entry in entries:
        for feedback_id in entry.corrects or ():
            corrected.setdefault(feedback_id, []).append(entry.offset)
    for entry in waiting:
        same_answer = offsets.get(entry.answer_id or "", ())
        later = [
            at for at in (*same_answer, *corrected.get(entry.feedback_id, ())) if at > entry.offset
        ]
        if later:
            yield entry, min(later)
