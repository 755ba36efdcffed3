"""Ledger: the state of one model and shard. All of it follows from the shard's entries.

A decision is a function of the event and of the entries before it, in the order of the log. A
ledger rebuilt from the entries written so far continues exactly as the one that wrote them.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Literal

from services.dataset.ledger.answer_feedback import (
    answer_id_of,
    combine_feedback,
    user_verdict_of,
)
from services.dataset.ledger.cached_entry import CachedEntry
from services.dataset.ledger.curation import (
    CurationResult,
    RedactionCheck,
    contributor_of,
    contributor_of_user,
    curate,
    trusted_contributors,
)
from services.dataset.ledger.duplicate_index import DuplicateIndex, with_compared_texts
from services.dataset.ledger.entry_index import EntryIndex
from services.dataset.ledger.feedback_mix import DropMonitor, FeedbackMixMonitor
from services.dataset.ledger.golden_set import GoldenSet
from services.dataset.ledger.pending import PendingExamples
from services.dataset.ledger.results import (
    BatchPlan,
    EventStatus,
    ShardStatus,
    ShardUpdate,
    TableWrite,
    WithdrawalPlan,
)
from services.dataset.ledger.selection import select_informative
from services.dataset.ledger.similarity.stored_text import unpack
from shared.config.model_file import ModelFile
from shared.events import Artefact, FeedbackScored, Position, WaitingStatus, WithdrawalRequested
from shared.identity import batch_identity, user_digest
from shared.storage.dataset_entries import (
    ClosedBatch,
    DatasetEntry,
    EntryReason,
    Membership,
    entry_key,
)


class Ledger:
    """Decides about the events of one model and shard.

    Each method that takes an event changes the state and returns everything to apply as one
    `ShardUpdate`. The cost of an event does not depend on the number of earlier ones.
    """

    def __init__(self, model_file: ModelFile, shard: int, golden: GoldenSet | None = None) -> None:
        self._model_file = model_file
        self._policy = model_file.curation
        self._redaction = RedactionCheck(model_file)
        self._trusted_contributors = trusted_contributors(model_file.curation)
        self._shard = shard
        self._golden = golden or GoldenSet()
        self._entries = EntryIndex()
        self._pending = PendingExamples(self._policy)
        self._feedback_mix = FeedbackMixMonitor()
        self._drops = DropMonitor()
        self._duplicate_index = DuplicateIndex(model_file, self._golden, self._entries)
        self._dropped: Counter[str] = Counter()
        self._latest: CachedEntry | None = None
        self._now = datetime.min.replace(tzinfo=UTC)
        self._next_number = 0
        self._newest_manifest: Artefact | None = None

    @classmethod
    def rebuild(
        cls,
        model_file: ModelFile,
        shard: int,
        golden: GoldenSet,
        entries: Iterable[CachedEntry],
        batches: Iterable[ClosedBatch] = (),
    ) -> "Ledger":
        """Rebuild the ledger that wrote these entries and batches, given in any order."""
        ledger = cls(model_file, shard, golden)
        ordered = sorted(map(_current, entries), key=lambda cached_entry: cached_entry.offset)
        memberships = [batch.membership(0) for batch in batches]
        members = sorted(
            (cached_entry for cached_entry in ordered if cached_entry.batch_number is not None),
            key=lambda cached_entry: (cached_entry.batch_number or 0, cached_entry.place or 0),
        )
        last_members = (cached_entry.entry for cached_entry in members[-1:])
        memberships += [entry.batch for entry in last_members if entry.batch]
        closed = max((membership.closed for membership in memberships), default=-1)
        for membership in memberships:
            ledger._advance_batch(membership)
        trained = [cached_entry for cached_entry in members if cached_entry.decision == "training"]
        for _, batch in groupby(trained, key=lambda cached_entry: cached_entry.batch_number):
            ledger._pending.record_batch(batch)
        held_out = [cached_entry for cached_entry in ordered if cached_entry.decision == "held_out"]
        evicted = ledger._duplicate_index.restore(trained, held_out)
        for cached_entry in ordered:
            ledger._index(cached_entry)
            if cached_entry.is_waiting:
                ledger._add_pending(cached_entry.entry)
            elif cached_entry.decision == "dropped":
                revoked = cached_entry.revoked
                if (cached_entry.offset if revoked is None else revoked) > closed:
                    ledger._dropped[cached_entry.reason] += 1
        ledger._duplicate_index.drop_texts(evicted)
        ledger._pending.release_new_users(ledger._now)
        return ledger

    @property
    def waiting_status(self) -> WaitingStatus:
        """Status of the next batch."""
        return self._pending.status

    def current_state(self) -> ShardUpdate:
        """The update that no event causes: gauges, and memory to free after a rebuild."""
        return self._update()

    def decide(
        self,
        event: FeedbackScored,
        source: Position,
        logged_at: datetime,
        traceparent: str | None = None,
    ) -> ShardUpdate:
        """Decide about the event at `source`, whose record has the time `logged_at` and the span
        context `traceparent`.
        """
        indexed = self._entries.get(event.identity)
        if indexed and indexed.entry.source == source:
            return self._update("replay")
        expired = self._expire(logged_at - timedelta(days=self._policy.deduplicate_days))
        if self._entries.get(event.identity):
            return self._update("duplicate", expired=expired, counted=("dropped", "duplicate"))
        answer_id = answer_id_of(event)
        latest = self._entries.latest_for_answer(answer_id)
        previous = latest.entry if latest else None
        combined = combine_feedback(event, previous)
        curated = (
            curate(combined, self._policy, self._golden.identities, self._redaction)
            if isinstance(combined, FeedbackScored)
            else CurationResult("dropped", combined)
        )
        superseded: list[DatasetEntry] = []
        if isinstance(combined, FeedbackScored) and previous is not None and previous.is_waiting:
            superseded.append(previous)
        corrected: list[DatasetEntry] = []
        if curated.example is not None:
            corrected = [
                entry
                for entry in self._duplicate_index.find_corrected(curated.example)
                if entry not in superseded
            ]
        # Before the new entry is made: a superseded example is no near-duplicate of its
        # replacement.
        revoked = [
            self._revoke(entry, "superseded", source.offset) for entry in superseded + corrected
        ]
        entry = self._make_entry(event, combined, curated, source, logged_at, answer_id, previous)
        if corrected:
            entry = entry.with_corrected(each.feedback_id for each in corrected)
        if traceparent is not None and entry.is_waiting:
            entry = entry.with_traceparent(traceparent)
        self._index(CachedEntry.of(entry))
        if entry.is_waiting:
            self._add_pending(entry)
        else:
            self._dropped[entry.reason] += 1
        self._pending.release_new_users(self._now)
        # The new entry comes first: from it, recovery can complete the superseded ones.
        return self._update(
            "new",
            (entry, *revoked),
            expired=expired,
            counted=(entry.decision, entry.reason),
            entry=entry,
        )

    def withdraw(
        self, request: WithdrawalRequested, source: Position, logged_at: datetime
    ) -> ShardUpdate:
        """Withdraw all feedback of a user from before `source`. Afterwards none of it waits, no
        example is compared with it, and no entry names the user, who counts as new from here on.
        The cost grows with the number of entries, unlike that of other events.
        """
        if indexed := self._entries.get(request.event_id):
            return self._update("replay" if indexed.entry.source == source else "duplicate")
        contributor = contributor_of_user(request.user_id)
        earlier = [
            cached_entry
            for cached_entry in self._entries
            if cached_entry.contributor == contributor and cached_entry.offset < source.offset
        ]
        redacted = [self._redact(cached_entry.entry, source.offset) for cached_entry in earlier]
        self._pending.forget_contributor(contributor)
        # Includes those that this request had withdrawn before a crash.
        withdrawn = sum(
            cached_entry.reason == "withdrawn" and cached_entry.revoked == source.offset
            for cached_entry in self._entries
        )
        entry = DatasetEntry(
            model=request.model,
            shard=self._shard,
            feedback_id=request.event_id,
            decision="withdrawal",
            reason="withdrawn",
            source=source,
            occurred_at=request.occurred_at,
            logged_at=logged_at,
            withdraws=user_digest(request.user_id),
        )
        self._index(CachedEntry.of(entry))
        self._pending.release_new_users(self._now)
        # The request's own entry comes last: once it is stored, the others are as well.
        return self._update(
            "new",
            (*redacted, entry),
            withdrawal=WithdrawalPlan(request, withdrawn, self._newest_manifest),
            entry=entry,
        )

    def advance_clock(self, logged_at: datetime) -> ShardUpdate:
        """Advance the time of the log without feedback."""
        self._now = max(self._now, logged_at)
        self._pending.release_new_users(self._now)
        return self._update()

    def is_overdue(self, now: datetime) -> bool:
        """True if a batch would close because of its age with the log's clock at `now`."""
        return bool(self._pending.batch_candidates(now))

    def close_batch(self, plan: BatchPlan, manifest: Artefact) -> ShardUpdate:
        """Close a batch whose manifest is written and announced, and make its entries members."""
        members = tuple(
            entry.with_membership(
                Membership(
                    number=plan.number,
                    place=place,
                    size=len(plan.members),
                    closed=plan.closed,
                    manifest=manifest,
                )
            )
            for place, entry in enumerate(plan.members)
        )
        self._pending.remove_batch(plan.members_with("training"))
        self._dropped.clear()
        for entry in members:
            self._entries.replace(CachedEntry.of(entry))
            if entry.batch:
                self._advance_batch(entry.batch)
            if entry.decision == "training":
                self._duplicate_index.add_trained(entry.feedback_id)
        return self._update(entries=members)

    def _update(
        self,
        event_status: EventStatus | None = None,
        entries: Sequence[DatasetEntry] = (),
        *,
        expired: tuple[str, ...] = (),
        counted: tuple[str, str] | None = None,
        withdrawal: WithdrawalPlan | None = None,
        entry: DatasetEntry | None = None,
    ) -> ShardUpdate:
        """The update that the current state leads to, with `entries` to write."""
        return ShardUpdate(
            status=ShardStatus(
                len(self._pending),
                self._pending.deferred,
                self._feedback_mix.spiked_kinds,
                self._drops.main_loss,
            ),
            event_status=event_status,
            withdrawal=withdrawal,
            expired=expired,
            writes=tuple(map(self._write_of, entries)),
            shrunk=self._take_shrunk(),
            counted=counted,
            batch=self._plan_batch(),
            entry=entry,
        )

    def _take_shrunk(self) -> tuple[tuple[str, bytes], ...]:
        """Smaller values of entries that lost their texts, by key; most events have none."""
        shrunk = self._duplicate_index.take_shrunk()
        return tuple((self._key(each.feedback_id), each.encoded) for each in shrunk)

    def _plan_batch(self) -> BatchPlan | None:
        """The batch to close now, None if it is too early. The same until it is closed."""
        candidates = self._pending.batch_candidates(self._now)
        if not candidates or self._latest is None:
            return None
        size = self._policy.batch_size
        selected = select_informative(candidates, size) if len(candidates) > size else candidates
        return BatchPlan(
            number=self._next_number,
            batch_id=batch_identity(self._model_file.model, self._shard, self._next_number),
            members=(*selected, *self._pending.attached),
            dropped=dict(sorted(self._dropped.items())),
            deferred={limit: count for limit, count in self._pending.deferred.items() if count},
            previous=self._newest_manifest,
            closed=self._latest.offset,
            occurred_at=self._latest.entry.occurred_at,
        )

    def _make_entry(
        self,
        event: FeedbackScored,
        combined: FeedbackScored | Literal["late", "corrected"],
        curated: CurationResult,
        source: Position,
        logged_at: datetime,
        answer_id: str | None,
        previous: DatasetEntry | None,
    ) -> DatasetEntry:
        """Make the entry of `event`. `combined` is the event with the reward of all feedback on its
        answer, or the reason why it changes nothing; `curated` is the decision on its own.
        """
        decision, reason, example = curated.decision, curated.reason, curated.example
        evidence: str | None = None
        if example is not None:
            conflict = self._duplicate_index.find_conflict(decision, example)
            if conflict is not None:
                if conflict == "contaminated":
                    evidence = self._duplicate_index.evidence_of(example.messages)
                decision, reason, example = "dropped", conflict, None
        contributor = contributor_of(combined if isinstance(combined, FeedbackScored) else event)
        if example is not None and not self._pending.has_room(contributor, example):
            decision, reason, example = "dropped", "waiting_limit", None
        since = self._first_seen(contributor, logged_at)
        eligible_at = (
            since + timedelta(hours=self._policy.new_user_hours)
            if since and decision == "training"
            else None
        )
        entry = DatasetEntry(
            model=event.model,
            shard=self._shard,
            feedback_id=event.identity,
            decision=decision,
            reason=reason,
            source=source,
            occurred_at=event.occurred_at,
            logged_at=logged_at,
            influence=contributor,
            conversation=event.conversation_id if decision == "training" else None,
            since=since,
            eligible_at=eligible_at if eligible_at and eligible_at > logged_at else None,
            answer_id=answer_id,
            parts=combined.parts if isinstance(combined, FeedbackScored) and answer_id else (),
            word=user_verdict_of(event, previous),
            example=example,
            prompt=evidence,
        )
        return with_compared_texts(entry)

    def _first_seen(self, contributor: str | None, logged_at: datetime) -> datetime | None:
        """Time at which a contributor was first seen in the existing entries; None if new users
        are not delayed, or this one is trusted.
        """
        if (
            contributor is None
            or not self._policy.new_user_hours
            or contributor in self._trusted_contributors
        ):
            return None
        latest = self._entries.latest_for_contributor(contributor)
        return (latest.entry.since if latest else None) or logged_at

    def _index(self, cached_entry: CachedEntry) -> None:
        """Add an entry, the latest of the log."""
        self._entries.add(cached_entry)
        self._latest = cached_entry
        self._now = max(self._now, cached_entry.logged_at)
        self._feedback_mix.observe(cached_entry.user_verdict or "none")
        self._drops.observe(cached_entry.decision, cached_entry.reason)
        self._duplicate_index.add_evidence(cached_entry)

    def _add_pending(self, entry: DatasetEntry) -> None:
        self._duplicate_index.add(entry)
        self._pending.add(entry)

    def _revoke(self, entry: DatasetEntry, reason: EntryReason, offset: int) -> DatasetEntry:
        """Drop a waiting entry because of the event at `offset`. Return its new version."""
        self._pending.remove(entry)
        self._duplicate_index.remove(entry.feedback_id)
        revoked = entry.revoked_by(reason, offset)
        self._entries.replace(CachedEntry.of(revoked))
        self._dropped[reason] += 1
        return revoked

    def _redact(self, entry: DatasetEntry, offset: int) -> DatasetEntry:
        """Erase the user's data from an entry; a waiting one is withdrawn at `offset`. Return its
        new version.
        """
        if entry.is_waiting:
            entry = self._revoke(entry, "withdrawn", offset)
        self._duplicate_index.stop_matching(entry.feedback_id)
        erased = entry.erased()
        self._entries.replace(CachedEntry.of(erased))
        return erased

    def _advance_batch(self, batch: Membership) -> None:
        if batch.number >= self._next_number:
            self._next_number, self._newest_manifest = batch.number + 1, batch.manifest

    def _expire(self, before: datetime) -> tuple[str, ...]:
        """Remove the examples that left the replay window or the held-out window from the duplicate
        index, and old entries that are no longer needed. Return the keys of the removed entries.
        """
        evicted = self._duplicate_index.evict_old()
        expired = self._entries.expire(before, evicted, self._is_needed)
        for feedback_id in expired:
            self._duplicate_index.remove(feedback_id)
        self._duplicate_index.drop_texts(evicted)
        return tuple(map(self._key, expired))

    def _is_needed(self, cached_entry: CachedEntry) -> bool:
        return cached_entry.is_waiting or cached_entry.feedback_id in self._duplicate_index

    def _write_of(self, entry: DatasetEntry) -> TableWrite:
        indexed = self._entries.get(entry.feedback_id)
        value = indexed.encoded if indexed else entry.encode()
        return TableWrite(entry.source.partition, entry.key, value)

    def _key(self, feedback_id: str) -> str:
        return entry_key(self._model_file.model, self._shard, feedback_id)


def _current(cached_entry: CachedEntry) -> CachedEntry:
    """Return a waiting entry of an earlier version with the texts that are compared now."""
    if not cached_entry.is_waiting:
        return cached_entry
    entry = cached_entry.entry
    if entry.text is None or unpack(entry.text) is not None:
        return cached_entry
    return CachedEntry.of(with_compared_texts(entry))
