"""Entries as they are found after a crash, made whole: batches that some members do not know of,
answers that later feedback changed.

A crash can fall between the entries of one batch, and a worker that was paused longer than its
session can wake up and write older entries over newer ones, over all those of a batch if it comes
to that. Both leave a batch with places that no entry fills. The batch's own record says that it was
closed, and its manifest names every member; those that still stand as waiting, from before the
batch was closed, are its members. In the same way an example can stand as waiting although later
feedback on its answer has taken its place, or its user's feedback was withdrawn; the entry of that
event is there, or it will be decided again.
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
    """What the table says of one model and shard, in any order."""

    entries: list[CachedEntry] = field(default_factory=list)
    batches: list[ClosedBatch] = field(default_factory=list)


def read_state(
    values: Iterable[tuple[bytes, bytes]], owns: Callable[[int], bool]
) -> tuple[dict[ShardKey, ShardState], list[bytes]]:
    """What the table says of each model and shard, from keys and their last values; and the keys of
    what belongs to partitions that are not ours. Each value is decoded once, and only what is asked
    of all entries is kept beside it.
    """
    state: dict[ShardKey, ShardState] = {}
    others: list[bytes] = []
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
        others.append(key)
    return state, others


def find_unannounced_batch(state: ShardState) -> ClosedBatch | None:
    """The newest batch of a model and shard that is on record, if none of its members knows of it:
    the crash may have been between the record and the announcement.
    """
    newest = max(state.batches, key=lambda batch: batch.number, default=None)
    if newest is None or any(card.batch_number == newest.number for card in state.entries):
        return None
    return newest


def repair_entries(
    state: ShardState, read_manifest: Callable[[Artefact], BatchManifest]
) -> list[DatasetEntry]:
    """The entries that have to be written again. `read` is asked only for batches that may lack
    members.
    """
    batches: dict[int, Membership] = {batch.number: batch.membership(0) for batch in state.batches}
    filled: dict[int, int] = {}
    waiting: dict[str, CachedEntry] = {}
    for card in state.entries:
        if card.batch_number is not None:
            filled[card.batch_number] = filled.get(card.batch_number, 0) + 1
            if card.batch_number not in batches and (batch := card.entry.batch) is not None:
                batches[card.batch_number] = batch
        elif card.is_waiting:
            waiting[card.feedback_id] = card
    repaired: list[DatasetEntry] = []
    for number, batch in sorted(batches.items()):
        if filled.get(number) == batch.size or not any(
            card.offset <= batch.closed for card in waiting.values()
        ):
            continue
        for place, feedback_id in enumerate(read_manifest(batch.manifest).feedback_ids):
            if feedback_id in waiting and waiting[feedback_id].offset <= batch.closed:
                repaired.append(
                    waiting.pop(feedback_id).entry.with_membership(
                        batch.model_copy(update={"place": place})
                    )
                )
    repaired += _revoked_entries(state.entries, waiting.values())
    return _with_redactions(state.entries, repaired)


def members_of_newest_batch(entries: Collection[CachedEntry]) -> list[CachedEntry]:
    """Those of the entries that are members of the newest batch."""
    number = max(
        (card.batch_number for card in entries if card.batch_number is not None), default=None
    )
    return [
        card for card in entries if card.batch_number is not None and card.batch_number == number
    ]


def _revoked_entries(
    cards: Collection[CachedEntry], waiting: Collection[CachedEntry]
) -> Iterator[DatasetEntry]:
    """Those that wait but were dropped, for later feedback on the same answer or by a withdrawal;
    whichever came first.
    """
    superseded = {card.feedback_id: offset for card, offset in _superseded_entries(cards, waiting)}
    withdrawals = _withdrawal_offsets(cards)
    for card in waiting:
        since: list[tuple[int, EntryReason]] = [
            (offset, "withdrawn") for offset in _withdrawals_after(card, withdrawals)
        ]
        if card.feedback_id in superseded:
            since.append((superseded[card.feedback_id], "superseded"))
        if since:
            offset, reason = min(since)
            yield card.entry.revoked_by(reason, offset)


def _with_redactions(
    cards: Collection[CachedEntry], repaired: Collection[DatasetEntry]
) -> list[DatasetEntry]:
    """`repaired`, and besides the entries that still say something of a user whose feedback was
    withdrawn; all as they say nothing.
    """
    withdrawals = _withdrawal_offsets(cards)
    newest = {entry.feedback_id: entry for entry in repaired}
    for card in cards:
        if _withdrawals_after(card, withdrawals):
            newest[card.feedback_id] = newest.get(card.feedback_id, card.entry).erased()
    return list(newest.values())


def _withdrawal_offsets(cards: Iterable[CachedEntry]) -> dict[str, list[int]]:
    """The offsets at which each user's feedback was withdrawn."""
    withdrawals: dict[str, list[int]] = {}
    for card in cards:
        if card.withdraws is not None:
            withdrawals.setdefault(card.withdraws, []).append(card.offset)
    return withdrawals


def _withdrawals_after(card: CachedEntry, withdrawals: Mapping[str, list[int]]) -> list[int]:
    """Those of the withdrawals that an entry falls under."""
    user = user_of(card.contributor) if withdrawals else None
    if user is None:
        return []
    return [offset for offset in withdrawals.get(user_digest(user), ()) if offset > card.offset]


def _superseded_entries(
    cards: Collection[CachedEntry], waiting: Collection[CachedEntry]
) -> Iterator[tuple[CachedEntry, int]]:
    """Of those that wait, the ones that later feedback on the same answer has replaced, with the
    offset of the first such.
    """
    waited_for = {card.answer_id for card in waiting}
    offsets: dict[str, list[int]] = {}
    for card in cards:
        if (
            card.answer_id is not None
            and card.answer_id in waited_for
            and card.reason not in ("late", "corrected")
        ):
            offsets.setdefault(card.answer_id, []).append(card.offset)
    for card in waiting:
        later = [offset for offset in offsets.get(card.answer_id or "", ()) if offset > card.offset]
        if later:
            yield card, min(later)
