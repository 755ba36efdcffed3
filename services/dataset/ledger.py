"""The state of one model and shard: what is known, what waits, what similar examples there are. All of it follows from the entries.

Decisions are functions of the entries before an event and of the event, in the order of the log. A ledger rebuilt from the
entries written so far goes on exactly as the one that wrote them.
"""

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from services.dataset.curation import curate, influence_of
from services.dataset.similarity import Similar, prompt_signature, text_signature
from services.dataset.waiting import Waiting
from shared.entries import ClosedBatch, Decision, Entry, Membership, Reason, entry_key
from shared.events import Artefact, FeedbackScored, Position
from shared.identity import identity
from shared.model_file import ModelFile


@dataclass(frozen=True, slots=True)
class Decided:
    """What became of an event: a new entry; or none, for a `duplicate` (the same feedback at another offset) and for a `replay`
    (the same offset again, after a crash). `expired` are keys of entries that are needed no more."""

    status: Literal["new", "duplicate", "replay"]
    entry: Entry | None = None
    expired: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Closing:
    """A batch that is full: its members in the order of their places (training, then negatives, then held out)."""

    number: int
    batch_id: str
    members: tuple[Entry, ...]
    dropped: dict[str, int]
    previous: Artefact | None
    closed: int
    occurred_at: datetime

    def of(self, decision: Decision) -> list[Entry]:
        return [entry for entry in self.members if entry.decision == decision]


class Ledger:
    """One model and shard. The cost of an event does not depend on how many came before."""

    def __init__(self, model_file: ModelFile, shard: int, golden: frozenset[str] = frozenset()) -> None:
        self._model_file = model_file
        self._policy = model_file.curation
        self._shard = shard
        self._golden = golden
        self._known: dict[str, Entry] = {}
        self._waiting = Waiting(self._policy.examples_per_user)
        self._riding: list[Entry] = []
        self._texts = Similar(self._policy.similarity)
        self._prompts = Similar(self._policy.similarity)
        self._replay: deque[str] = deque()
        self._replay_window = max(lane.replay_window for lane in model_file.lanes.values())
        self._held_out: deque[str] = deque()
        self._aging: deque[str] = deque()
        self._aged: set[str] = set()
        self._settled: list[str] = []
        self._dropped: Counter[str] = Counter()
        self._newest: Entry | None = None
        self._number = 0
        self._previous: Artefact | None = None

    @classmethod
    def rebuilt(
        cls, model_file: ModelFile, shard: int, golden: frozenset[str], entries: Iterable[Entry], batches: Iterable[ClosedBatch] = ()
    ) -> "Ledger":
        """The ledger that wrote `entries` and `batches`, which may come in any order."""
        ledger = cls(model_file, shard, golden)
        ordered = sorted(entries, key=lambda entry: entry.source.offset)
        memberships = [batch.membership(0) for batch in batches] + [entry.batch for entry in ordered if entry.batch]
        closed = max((membership.closed for membership in memberships), default=-1)
        for membership in memberships:
            ledger._follow(membership)
        trained: list[tuple[int, int, Entry]] = []
        for entry in ordered:
            ledger._remember(entry)
            if entry.waits:
                ledger._wait(entry)
            elif entry.batch:
                if entry.decision == "training":
                    trained.append((entry.batch.number, entry.batch.place, entry))
            elif entry.source.offset > closed:
                ledger._dropped[entry.reason] += 1
            if entry.decision == "held_out":
                ledger._index_held_out(entry)
        for _, _, entry in sorted(trained, key=lambda at: at[:2])[-ledger._replay_window or len(trained) :]:
            ledger._index(entry)
            ledger._replay.append(entry.feedback_id)
        return ledger

    @property
    def pending(self) -> int:
        """How many training examples wait."""
        return self._waiting.size

    def decide(self, event: FeedbackScored, source: Position, logged_at: datetime) -> Decided:
        """Decide about the event at `source`, whose record is of `logged_at`."""
        if (known := self._known.get(event.identity)) and known.source == source:
            return Decided("replay")
        expired = self._expire(logged_at - timedelta(days=self._policy.deduplicate_days))
        if event.identity in self._known:
            return Decided("duplicate", None, expired)
        entry = self._entry(event, source, logged_at)
        self._remember(entry)
        if entry.waits:
            self._wait(entry)
        else:
            self._dropped[entry.reason] += 1
        if entry.decision == "held_out":
            self._index_held_out(entry)
        return Decided("new", entry, expired)

    def due(self) -> Closing | None:
        """The batch that is full, or none. The same until `close`."""
        size = self._policy.batch_size
        if self._waiting.eligible < size or self._newest is None:
            return None
        riding = sorted(self._riding, key=lambda entry: entry.decision != "negative")
        return Closing(
            number=self._number,
            batch_id=identity(self._model_file.model, self._shard, self._number),
            members=(*self._waiting.first(size), *riding),
            dropped=dict(sorted(self._dropped.items())),
            previous=self._previous,
            closed=self._newest.source.offset,
            occurred_at=self._newest.occurred_at,
        )

    def close(self, closing: Closing, manifest: Artefact) -> tuple[Entry, ...]:
        """Go on after a batch whose manifest is written and announced; the entries of its members, to be written again."""
        joined = tuple(
            entry.joined(
                Membership(number=closing.number, place=place, size=len(closing.members), closed=closing.closed, manifest=manifest)
            )
            for place, entry in enumerate(closing.members)
        )
        self._waiting.remove(closing.of("training"))
        self._riding.clear()
        self._dropped.clear()
        for entry in joined:
            self._known[entry.feedback_id] = entry
            if entry.batch:
                self._follow(entry.batch)
            self._settled.append(entry.feedback_id)
            if entry.decision == "training":
                self._replay.append(entry.feedback_id)
        return joined

    def _entry(self, event: FeedbackScored, source: Position, logged_at: datetime) -> Entry:
        curated = curate(event, self._policy, self._golden)
        decision, reason, example = curated.decision, curated.reason, curated.example
        text = prompt = None
        if example is not None:
            prompt = prompt_signature(example.messages)
            text = text_signature(example.messages, example.answer)
            against = self._against(decision, text, prompt)
            if against is not None:
                decision, reason, example, text, prompt = "dropped", against, None, None, None
        return Entry(
            model=event.model,
            shard=self._shard,
            feedback_id=event.identity,
            decision=decision,
            reason=reason,
            source=source,
            occurred_at=event.occurred_at,
            logged_at=logged_at,
            influence=influence_of(event) if decision == "training" else None,
            example=example,
            text=text if decision in ("training", "held_out") else None,
            prompt=prompt if decision == "held_out" else None,
        )

    def _against(self, decision: Decision, text: str, prompt: str) -> Reason | None:
        """Why an example that is good in itself is dropped after all."""
        if decision in ("training", "negative") and prompt in self._prompts:
            return "contaminated"
        if decision in ("training", "held_out") and text in self._texts:
            return "near_duplicate"
        return None

    def _remember(self, entry: Entry) -> None:
        self._known[entry.feedback_id] = entry
        self._aging.append(entry.feedback_id)
        self._newest = entry

    def _wait(self, entry: Entry) -> None:
        if entry.decision == "training":
            self._waiting.add(entry)
            self._index(entry)
        else:
            self._riding.append(entry)

    def _follow(self, batch: Membership) -> None:
        if batch.number >= self._number:
            self._number, self._previous = batch.number + 1, batch.manifest

    def _index(self, entry: Entry) -> None:
        if entry.text is not None:
            self._texts.add(entry.feedback_id, entry.text)

    def _index_held_out(self, entry: Entry) -> None:
        self._index(entry)
        if entry.prompt is not None:
            self._prompts.add(entry.feedback_id, entry.prompt)
        self._held_out.append(entry.feedback_id)

    def _expire(self, before: datetime) -> tuple[str, ...]:
        """Forget what left the replay window or the newest of the held-out set, and entries that are old besides and wait for nothing."""
        left = [self._replay.popleft() for _ in range(len(self._replay) - self._replay_window)]
        left += [self._held_out.popleft() for _ in range(len(self._held_out) - self._model_file.gate.held_out_newest)]
        for name in left:
            self._texts.remove(name)
            self._prompts.remove(name)
        while self._aging and self._known[self._aging[0]].logged_at < before:
            left.append(self._aging[0])
            self._aged.add(self._aging.popleft())
        # Only what has just changed can have become needless.
        gone = [name for name in dict.fromkeys((*left, *self._settled)) if name in self._aged and not self._is_needed(name)]
        self._settled.clear()
        for name in gone:
            self._aged.discard(name)
            del self._known[name]
        return tuple(entry_key(self._model_file.model, self._shard, name) for name in gone)

    def _is_needed(self, name: str) -> bool:
        return self._known[name].waits or self._texts.has(name)
