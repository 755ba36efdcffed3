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

from services.dataset.ledger.answer_feedback import answer_id_of, combined, word_of
from services.dataset.ledger.curation import Curated, curate, influence_of, influence_of_user
from services.dataset.ledger.duplicate_index import Likeness
from services.dataset.ledger.entry_index import Known
from services.dataset.ledger.entry_row import Card
from services.dataset.ledger.feedback_mix import Vigilance
from services.dataset.ledger.golden_set import Golden
from services.dataset.ledger.minhash import signatures_of
from services.dataset.ledger.pending import Pending
from services.dataset.ledger.results import Closing, Decided, Withdrawn
from services.dataset.ledger.selection import most_informative
from shared.config.model_file import ModelFile
from shared.events import Artefact, FeedbackScored, Position, WithdrawalRequested
from shared.identity import batch_identity, user_digest
from shared.storage.dataset_entries import ClosedBatch, Entry, Membership, Reason, entry_key


class Ledger:
    """One model and shard. The cost of an event does not depend on how many came before."""

    def __init__(self, model_file: ModelFile, shard: int, golden: Golden | None = None) -> None:
        self._model_file = model_file
        self._policy = model_file.curation
        self.shard = shard
        self._golden = golden or Golden()
        self._known = Known()
        self._pending = Pending(self._policy)
        self.vigilance = Vigilance()
        self._likeness = Likeness(model_file, self._golden)
        self._dropped: Counter[str] = Counter()
        self._newest: Card | None = None
        self._lighter: list[Card] = []
        self._now = datetime.min.replace(tzinfo=UTC)
        self._number = 0
        self._previous: Artefact | None = None

    @classmethod
    def rebuilt(
        cls,
        model_file: ModelFile,
        shard: int,
        golden: Golden,
        cards: Iterable[Card],
        batches: Iterable[ClosedBatch] = (),
    ) -> "Ledger":
        """The ledger that wrote the entries of `cards`, and `batches`; both may come in any order."""
        ledger = cls(model_file, shard, golden)
        ordered = sorted(cards, key=lambda card: card.offset)
        memberships = [batch.membership(0) for batch in batches]
        members = sorted(
            (card for card in ordered if card.number is not None),
            key=lambda card: (card.number or 0, card.place or 0),
        )
        memberships += [card.entry.batch for card in members[-1:] if card.entry.batch]
        closed = max((membership.closed for membership in memberships), default=-1)
        for membership in memberships:
            ledger._follow(membership)
        trained = [card for card in members if card.decision == "training"]
        for _, batch in groupby(trained, key=lambda card: card.number):
            ledger._pending.trained(batch)
        left = ledger._likeness.restore(
            trained, [card for card in ordered if card.decision == "held_out"]
        )
        for card in ordered:
            ledger._remember(card)
            if card.waits:
                ledger._wait(card.entry)
            elif (
                card.decision == "dropped"
                and (card.offset if card.revoked is None else card.revoked) > closed
            ):
                ledger._dropped[card.reason] += 1
        for card in left:
            ledger._lighten(card.feedback_id)
        ledger._pending.wake(ledger._now)
        return ledger

    @property
    def newest_manifest(self) -> Artefact | None:
        """That of the batch which closed last."""
        return self._previous

    @property
    def pending(self) -> int:
        """How many training examples wait."""
        return len(self._pending)

    @property
    def held_back(self) -> dict[str, int]:
        """How many training examples could not enter a batch now, however large, by what holds them
        back.
        """
        return self._pending.held_back

    def encoded(self, name: str) -> bytes:
        """The entry of an event that is known, as it is held and has to be written. KeyError when
        it is not.
        """
        return self._known[name].encoded

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
    ) -> Decided:
        """Decide about the event at `source`, whose record is of `logged_at` and names the span
        `traceparent`.
        """
        if (known := self._known.get(event.identity)) and known.entry.source == source:
            return Decided("replay")
        expired = self._expire(logged_at - timedelta(days=self._policy.deduplicate_days))
        if self._known.get(event.identity):
            return Decided("duplicate", expired=expired)
        answer_id = answer_id_of(event)
        standing = said.entry if (said := self._known.of_answer(answer_id)) else None
        counts = combined(event, standing)
        superseded = None
        if isinstance(counts, FeedbackScored) and standing is not None and standing.waits:
            # Before the new entry is made: what is superseded is no near-duplicate of what takes
            # its place.
            superseded = self._revoke(standing, "superseded", source.offset)
        entry = self._entry(event, counts, source, logged_at, answer_id, standing)
        if traceparent is not None and entry.waits:
            entry = entry.traced(traceparent)
        self._remember(Card.of(entry))
        if entry.waits:
            self._wait(entry)
        else:
            self._dropped[entry.reason] += 1
        self._pending.wake(self._now)
        return Decided("new", entry, superseded, expired)

    def withdraw(
        self, request: WithdrawalRequested, source: Position, logged_at: datetime
    ) -> Withdrawn:
        """Take out what a user said before `source`. Nothing that waits is theirs then, nothing is
        compared with what they said, and no entry names them; what they say from here on is a
        stranger's. Work grows with the number of entries, unlike elsewhere.
        """
        if known := self._known.get(request.event_id):
            return Withdrawn("replay" if known.entry.source == source else "duplicate")
        influence = influence_of_user(request.user_id)
        theirs = [
            card
            for card in self._known
            if card.influence == influence and card.offset < source.offset
        ]
        written = tuple(self._forget(card.entry, source.offset) for card in theirs)
        self._pending.forget(influence)
        # Some may have been withdrawn for this very request before a crash.
        withdrawn = sum(
            card.reason == "withdrawn" and card.revoked == source.offset for card in self._known
        )
        entry = Entry(
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
        self._remember(Card.of(entry))
        self._pending.wake(self._now)
        return Withdrawn("new", withdrawn, (*written, entry))

    def wait_ended(self, logged_at: datetime) -> None:
        """The log's clock goes on without an event."""
        self._now = max(self._now, logged_at)
        self._pending.wake(self._now)

    def is_overdue(self, now: datetime) -> bool:
        """Whether a batch would close for its age if the log's clock were at `now`."""
        return bool(self._pending.candidates(now))

    def due(self) -> Closing | None:
        """The batch that is full, or none. The same until `close`."""
        candidates = self._pending.candidates(self._now)
        if not candidates or self._newest is None:
            return None
        size = self._policy.batch_size
        chosen = most_informative(candidates, size) if len(candidates) > size else candidates
        return Closing(
            number=self._number,
            batch_id=batch_identity(self._model_file.model, self.shard, self._number),
            members=(*chosen, *self._pending.riding),
            dropped=dict(sorted(self._dropped.items())),
            held_back={reason: count for reason, count in self.held_back.items() if count},
            previous=self._previous,
            closed=self._newest.offset,
            occurred_at=self._newest.entry.occurred_at,
        )

    def close(self, closing: Closing, manifest: Artefact) -> tuple[Entry, ...]:
        """Go on after a batch whose manifest is written and announced; the entries of its members,
        to be written again.
        """
        joined = tuple(
            entry.joined(
                Membership(
                    number=closing.number,
                    place=place,
                    size=len(closing.members),
                    closed=closing.closed,
                    manifest=manifest,
                )
            )
            for place, entry in enumerate(closing.members)
        )
        self._pending.enter(closing.of("training"))
        self._dropped.clear()
        for entry in joined:
            self._known.change(Card.of(entry))
            if entry.batch:
                self._follow(entry.batch)
            if entry.decision == "training":
                self._likeness.train(entry.feedback_id)
        return joined

    def _entry(
        self,
        event: FeedbackScored,
        counts: FeedbackScored | Literal["late", "corrected"],
        source: Position,
        logged_at: datetime,
        answer_id: str | None,
        standing: Entry | None,
    ) -> Entry:
        """The entry of `event`, which with all that was said of its answer before counts as
        `counts`.
        """
        curated = (
            curate(counts, self._policy, self._golden.identities)
            if isinstance(counts, FeedbackScored)
            else Curated("dropped", counts)
        )
        decision, reason, example = curated.decision, curated.reason, curated.example
        text = prompt = None
        if example is not None:
            prompt, text = signatures_of(example.messages, example.answer)
            against = self._likeness.against(decision, example.messages, text, prompt)
            if against is not None:
                decision, reason, example, text, prompt = "dropped", against, None, None, None
        influence = influence_of(counts if isinstance(counts, FeedbackScored) else event)
        since = self._since(influence, logged_at)
        eligible_at = (
            since + timedelta(hours=self._policy.newcomer_hours)
            if since and decision == "training"
            else None
        )
        return Entry(
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
            word=word_of(event, standing),
            example=example,
            text=text if decision in ("training", "held_out") else None,
            prompt=prompt if decision in ("training", "held_out") else None,
        )

    def _since(self, influence: str | None, logged_at: datetime) -> datetime | None:
        """When a user was first seen, as far as entries reach back; None where newcomers do not
        wait.
        """
        if influence is None or not self._policy.newcomer_hours:
            return None
        newest = self._known.of_user(influence)
        return (newest.entry.since if newest else None) or logged_at

    def _remember(self, card: Card) -> None:
        self._known.add(card)
        self._newest = card
        self._now = max(self._now, card.logged_at)
        self.vigilance.see(card.word or "none")

    def _wait(self, entry: Entry) -> None:
        self._likeness.add(entry)
        self._pending.add(entry)

    def _revoke(self, entry: Entry, reason: Reason, offset: int) -> Entry:
        """Take out an entry that waits, for the event at `offset`; as it has to be written again."""
        self._pending.remove(entry)
        self._likeness.remove(entry.feedback_id)
        revoked = entry.revoked_by(reason, offset)
        self._known.change(Card.of(revoked))
        self._dropped[reason] += 1
        return revoked

    def _forget(self, entry: Entry, offset: int) -> Entry:
        """Keep nothing of what an entry says; one that waits is withdrawn at `offset`. As it has to
        be written again.
        """
        if entry.waits:
            entry = self._revoke(entry, "withdrawn", offset)
        self._likeness.forget(entry.feedback_id)
        forgotten = entry.forgotten()
        self._known.change(Card.of(forgotten))
        return forgotten

    def _follow(self, batch: Membership) -> None:
        if batch.number >= self._number:
            self._number, self._previous = batch.number + 1, batch.manifest

    def _expire(self, before: datetime) -> tuple[str, ...]:
        """Forget what left the replay window or the newest of the held-out set, and entries that
        are old besides and wait for nothing.
        """
        left = self._likeness.leave()
        gone = self._known.expire(
            before, left, lambda card: card.waits or card.feedback_id in self._likeness
        )
        for name in gone:
            self._likeness.remove(name)
        for name in left:
            if (card := self._known.get(name)) is not None and not card.waits:
                self._lighten(name)
        return tuple(self._key(name) for name in gone)

    def _lighten(self, name: str) -> None:
        """Hold no signatures of an entry with which nothing is compared any more."""
        if (lighter := self._known.lighten(name)) is not None:
            self._lighter.append(lighter)

    def _key(self, name: str) -> str:
        return entry_key(self._model_file.model, self.shard, name)
