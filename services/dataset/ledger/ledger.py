"""The state of one model and shard: what is known, what waits, what similar examples there are. All
of it follows from the entries.

Decisions are functions of the entries before an event and of the event, in the order of the log. A
ledger rebuilt from the entries written so far goes on exactly as the one that wrote them.
"""

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Literal

from services.dataset.ledger.answer_feedback import answer_id_of, combine_feedback, user_verdict_of
from services.dataset.ledger.cached_entry import CachedEntry
from services.dataset.ledger.curation import (
    CurationResult,
    contributor_of,
    contributor_of_user,
    curate,
)
from services.dataset.ledger.duplicate_index import DuplicateIndex
from services.dataset.ledger.entry_index import EntryIndex
from services.dataset.ledger.feedback_mix import FeedbackMixMonitor
from services.dataset.ledger.golden_set import GoldenSet
from services.dataset.ledger.minhash import signatures_of
from services.dataset.ledger.pending import PendingExamples
from services.dataset.ledger.results import BatchPlan, FeedbackDecision, WithdrawalDecision
from services.dataset.ledger.selection import select_informative
from shared.config.model_file import ModelFile
from shared.events import Artefact, FeedbackScored, Position, WithdrawalRequested
from shared.identity import batch_identity, user_digest
from shared.storage.dataset_entries import (
    ClosedBatch,
    DatasetEntry,
    EntryReason,
    Membership,
    entry_key,
)


class Ledger:
    """One model and shard. The cost of an event does not depend on how many came before."""

    def __init__(self, model_file: ModelFile, shard: int, golden: GoldenSet | None = None) -> None:
        self._model_file = model_file
        self._policy = model_file.curation
        self.shard = shard
        self._golden = golden or GoldenSet()
        self._entries = EntryIndex()
        self._pending = PendingExamples(self._policy)
        self.feedback_mix = FeedbackMixMonitor()
        self._duplicate_index = DuplicateIndex(model_file, self._golden)
        self._dropped: Counter[str] = Counter()
        self._latest: CachedEntry | None = None
        self._lighter: list[CachedEntry] = []
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
        """The ledger that wrote the entries of `cards`, and `batches`; both may come in any order."""
        ledger = cls(model_file, shard, golden)
        ordered = sorted(entries, key=lambda card: card.offset)
        memberships = [batch.membership(0) for batch in batches]
        members = sorted(
            (card for card in ordered if card.batch_number is not None),
            key=lambda card: (card.batch_number or 0, card.place or 0),
        )
        memberships += [card.entry.batch for card in members[-1:] if card.entry.batch]
        closed = max((membership.closed for membership in memberships), default=-1)
        for membership in memberships:
            ledger._advance_batch(membership)
        trained = [card for card in members if card.decision == "training"]
        for _, batch in groupby(trained, key=lambda card: card.batch_number):
            ledger._pending.record_batch(batch)
        left = ledger._duplicate_index.restore(
            trained, [card for card in ordered if card.decision == "held_out"]
        )
        for card in ordered:
            ledger._index(card)
            if card.is_waiting:
                ledger._add_pending(card.entry)
            elif (
                card.decision == "dropped"
                and (card.offset if card.revoked is None else card.revoked) > closed
            ):
                ledger._dropped[card.reason] += 1
        for card in left:
            ledger._lighten(card.feedback_id)
        ledger._pending.release_new_users(ledger._now)
        return ledger

    @property
    def newest_manifest(self) -> Artefact | None:
        """That of the batch which closed last."""
        return self._newest_manifest

    @property
    def pending(self) -> int:
        """How many training examples wait."""
        return len(self._pending)

    @property
    def deferred(self) -> dict[str, int]:
        """How many training examples could not enter a batch now, however large, by what holds them
        back.
        """
        return self._pending.deferred

    def encoded_entry(self, name: str) -> bytes:
        """The entry of an event that is known, as it is held and has to be written. KeyError when
        it is not.
        """
        return self._entries[name].encoded

    def lighter(self) -> list[tuple[str, bytes]]:
        """Keys of entries that have become lighter since it was asked last, and what is held of
        them. None of it has to be written.
        """
        lighter, self._lighter = self._lighter, []
        return [(self._key(card.feedback_id), card.encoded) for card in lighter]

    def decide(
        self,
        event: FeedbackScored,
        source: Position,
        logged_at: datetime,
        traceparent: str | None = None,
    ) -> FeedbackDecision:
        """Decide about the event at `source`, whose record is of `logged_at` and names the span
        `traceparent`.
        """
        if (known := self._entries.get(event.identity)) and known.entry.source == source:
            return FeedbackDecision("replay")
        expired = self._expire(logged_at - timedelta(days=self._policy.deduplicate_days))
        if self._entries.get(event.identity):
            return FeedbackDecision("duplicate", expired=expired)
        answer_id = answer_id_of(event)
        standing = said.entry if (said := self._entries.latest_for_answer(answer_id)) else None
        counts = combine_feedback(event, standing)
        superseded = None
        if isinstance(counts, FeedbackScored) and standing is not None and standing.is_waiting:
            # Before the new entry is made: what is superseded is no near-duplicate of what takes
            # its place.
            superseded = self._revoke(standing, "superseded", source.offset)
        entry = self._entry(event, counts, source, logged_at, answer_id, standing)
        if traceparent is not None and entry.is_waiting:
            entry = entry.with_traceparent(traceparent)
        self._index(CachedEntry.of(entry))
        if entry.is_waiting:
            self._add_pending(entry)
        else:
            self._dropped[entry.reason] += 1
        self._pending.release_new_users(self._now)
        return FeedbackDecision("new", entry, superseded, expired)

    def withdraw(
        self, request: WithdrawalRequested, source: Position, logged_at: datetime
    ) -> WithdrawalDecision:
        """Take out what a user said before `source`. Nothing that waits is theirs then, nothing is
        compared with what they said, and no entry names them; what they say from here on is a
        stranger's. Work grows with the number of entries, unlike elsewhere.
        """
        if known := self._entries.get(request.event_id):
            return WithdrawalDecision("replay" if known.entry.source == source else "duplicate")
        influence = contributor_of_user(request.user_id)
        theirs = [
            card
            for card in self._entries
            if card.contributor == influence and card.offset < source.offset
        ]
        written = tuple(self._redact(card.entry, source.offset) for card in theirs)
        self._pending.forget_contributor(influence)
        # Some may have been withdrawn for this very request before a crash.
        withdrawn = sum(
            card.reason == "withdrawn" and card.revoked == source.offset for card in self._entries
        )
        entry = DatasetEntry(
            model=request.model,
            shard=self.shard,
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
        return WithdrawalDecision("new", withdrawn, (*written, entry))

    def advance_clock(self, logged_at: datetime) -> None:
        """The log's clock goes on without an event."""
        self._now = max(self._now, logged_at)
        self._pending.release_new_users(self._now)

    def is_overdue(self, now: datetime) -> bool:
        """Whether a batch would close for its age if the log's clock were at `now`."""
        return bool(self._pending.batch_candidates(now))

    def plan_batch(self) -> BatchPlan | None:
        """The batch that is full, or none. The same until `close`."""
        candidates = self._pending.batch_candidates(self._now)
        if not candidates or self._latest is None:
            return None
        size = self._policy.batch_size
        chosen = select_informative(candidates, size) if len(candidates) > size else candidates
        return BatchPlan(
            number=self._next_number,
            batch_id=batch_identity(self._model_file.model, self.shard, self._next_number),
            members=(*chosen, *self._pending.attached),
            dropped=dict(sorted(self._dropped.items())),
            deferred={reason: count for reason, count in self.deferred.items() if count},
            previous=self._newest_manifest,
            closed=self._latest.offset,
            occurred_at=self._latest.entry.occurred_at,
        )

    def close_batch(self, plan: BatchPlan, manifest: Artefact) -> tuple[DatasetEntry, ...]:
        """Go on after a batch whose manifest is written and announced; the entries of its members,
        to be written again.
        """
        joined = tuple(
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
        for entry in joined:
            self._entries.replace(CachedEntry.of(entry))
            if entry.batch:
                self._advance_batch(entry.batch)
            if entry.decision == "training":
                self._duplicate_index.add_trained(entry.feedback_id)
        return joined

    def _entry(
        self,
        event: FeedbackScored,
        counts: FeedbackScored | Literal["late", "corrected"],
        source: Position,
        logged_at: datetime,
        answer_id: str | None,
        standing: DatasetEntry | None,
    ) -> DatasetEntry:
        """The entry of `event`, which with all that was said of its answer before counts as
        `counts`.
        """
        curated = (
            curate(counts, self._policy, self._golden.identities)
            if isinstance(counts, FeedbackScored)
            else CurationResult("dropped", counts)
        )
        decision, reason, example = curated.decision, curated.reason, curated.example
        text = prompt = None
        if example is not None:
            prompt, text = signatures_of(example.messages, example.answer)
            against = self._duplicate_index.find_conflict(decision, example.messages, text, prompt)
            if against is not None:
                decision, reason, example, text, prompt = "dropped", against, None, None, None
        influence = contributor_of(counts if isinstance(counts, FeedbackScored) else event)
        since = self._first_seen(influence, logged_at)
        eligible_at = (
            since + timedelta(hours=self._policy.new_user_hours)
            if since and decision == "training"
            else None
        )
        return DatasetEntry(
            model=event.model,
            shard=self.shard,
            feedback_id=event.identity,
            decision=decision,
            reason=reason,
            source=source,
            occurred_at=event.occurred_at,
            logged_at=logged_at,
            influence=influence,
            conversation=event.conversation_id if decision == "training" else None,
            since=since,
            eligible_at=eligible_at if eligible_at and eligible_at > logged_at else None,
            answer_id=answer_id,
            parts=counts.parts if isinstance(counts, FeedbackScored) and answer_id else (),
            word=user_verdict_of(event, standing),
            example=example,
            text=text if decision in ("training", "held_out") else None,
            prompt=prompt if decision in ("training", "held_out") else None,
        )

    def _first_seen(self, influence: str | None, logged_at: datetime) -> datetime | None:
        """When a user was first seen, as far as entries reach back; None where newcomers do not
        wait.
        """
        if influence is None or not self._policy.new_user_hours:
            return None
        newest = self._entries.latest_for_contributor(influence)
        return (newest.entry.since if newest else None) or logged_at

    def _index(self, cached_entry: CachedEntry) -> None:
        self._entries.add(cached_entry)
        self._latest = cached_entry
        self._now = max(self._now, cached_entry.logged_at)
        self.feedback_mix.observe(cached_entry.user_verdict or "none")

    def _add_pending(self, entry: DatasetEntry) -> None:
        self._duplicate_index.add(entry)
        self._pending.add(entry)

    def _revoke(self, entry: DatasetEntry, reason: EntryReason, offset: int) -> DatasetEntry:
        """Take out an entry that waits, for the event at `offset`; as it has to be written again."""
        self._pending.remove(entry)
        self._duplicate_index.remove(entry.feedback_id)
        revoked = entry.revoked_by(reason, offset)
        self._entries.replace(CachedEntry.of(revoked))
        self._dropped[reason] += 1
        return revoked

    def _redact(self, entry: DatasetEntry, offset: int) -> DatasetEntry:
        """Keep nothing of what an entry says; one that waits is withdrawn at `offset`. As it has to
        be written again.
        """
        if entry.is_waiting:
            entry = self._revoke(entry, "withdrawn", offset)
        self._duplicate_index.stop_matching(entry.feedback_id)
        forgotten = entry.erased()
        self._entries.replace(CachedEntry.of(forgotten))
        return forgotten

    def _advance_batch(self, batch: Membership) -> None:
        if batch.number >= self._next_number:
            self._next_number, self._newest_manifest = batch.number + 1, batch.manifest

    def _expire(self, before: datetime) -> tuple[str, ...]:
        """Forget what left the replay window or the newest of the held-out set, and entries that
        are old besides and wait for nothing.
        """
        left = self._duplicate_index.evict_old()
        gone = self._entries.expire(
            before, left, lambda card: card.is_waiting or card.feedback_id in self._duplicate_index
        )
        for name in gone:
            self._duplicate_index.remove(name)
        for name in left:
            if (card := self._entries.get(name)) is not None and not card.is_waiting:
                self._lighten(name)
        return tuple(self._key(name) for name in gone)

    def _lighten(self, name: str) -> None:
        """Hold no signatures of an entry with which nothing is compared any more."""
        if (lighter := self._entries.lighten(name)) is not None:
            self._lighter.append(lighter)

    def _key(self, name: str) -> str:
        return entry_key(self._model_file.model, self.shard, name)
