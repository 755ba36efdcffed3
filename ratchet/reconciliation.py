"""What became of every piece of feedback that was accepted, reckoned from outside: from the topics
and the snapshots alone.

Each is in exactly one place: a dead-letter topic, waiting for a batch, a member of one, or dropped
with a reason. Where that does not hold, a sentence says of which, and how. It holds for topics that
are read from their beginning, while the streams stand still, as long as nothing in them is older
than the de-duplication window.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from shared.errors import Unprocessable
from shared.events import (
    Artefact,
    BatchReady,
    Event,
    FeedbackReceived,
    FeedbackScored,
    Position,
    UserForgotten,
    WaitEnded,
    WithdrawalRequested,
)
from shared.messaging.bus import Record
from shared.messaging.codec import decode
from shared.messaging.dead_letters import DeadLetterInfo
from shared.messaging.topics import (
    DATASET_ENTRIES,
    FEEDBACK_RECEIVED,
    FEEDBACK_SCORED,
    TRAINING_BATCHES,
    dead_letter_topic,
)
from shared.storage.dataset_entries import DatasetEntry, EntryDecision, TableState
from shared.storage.snapshots import BatchManifest

TOPICS_NEEDED = (
    FEEDBACK_RECEIVED,
    dead_letter_topic(FEEDBACK_RECEIVED),
    FEEDBACK_SCORED,
    dead_letter_topic(FEEDBACK_SCORED),
    DATASET_ENTRIES,
    TRAINING_BATCHES,
)

CONTROL_EVENTS: tuple[type[Event], ...] = (UserForgotten, WithdrawalRequested, WaitEnded)
"""What stands between the feedback and is none."""

OutcomeState = Literal["dead_letter", "dropped", "waiting", "member"]
FeedbackKey = tuple[str, int, str]
"""A model, a shard and a feedback id."""


@dataclass(frozen=True, slots=True)
class FeedbackOutcome:
    """Where a piece of feedback is. `reason` is that of its entry, or `duplicate`; a dead letter
    has neither decision nor reason.
    """

    state: OutcomeState
    decision: EntryDecision | None = None
    reason: str = ""


@dataclass(frozen=True)
class Reconciliation:
    """Fates by where the feedback stands in `feedback.received`; and sentences on what is in no
    place, or in more than one.
    """

    accepted: int
    scored: int
    outcomes: dict[Position, FeedbackOutcome]
    lost: tuple[str, ...]
    duplicated: tuple[str, ...]


@dataclass
class _TopicContents:
    """The topics, each read for what it says."""

    received: list[Position] = field(default_factory=list)
    dead: set[Position] = field(default_factory=set)
    scored: dict[Position, FeedbackScored] = field(default_factory=dict)
    scored_from: dict[Position, list[Position]] = field(default_factory=dict)
    entries: dict[FeedbackKey, DatasetEntry] = field(default_factory=dict)
    manifests: dict[tuple[str, int, int], dict[str, Artefact]] = field(default_factory=dict)


def reconcile(
    records: Iterable[Record], read: Callable[[Artefact], BatchManifest]
) -> Reconciliation:
    """Reckon from every record of `TOPICS_NEEDED`; `read` gives the manifest behind a claim check."""
    said = _read_topics(records)
    lost: list[str] = []
    doubled: list[str] = []
    batches: dict[FeedbackKey, list[int]] = {}
    for (model, shard, number), manifests in said.manifests.items():
        if len(manifests) > 1:
            doubled.append(
                f"batch {number} of {model}#{shard} was announced with {len(manifests)} manifests"
            )
        for feedback_id in {
            name for manifest in manifests.values() for name in read(manifest).feedback_ids
        }:
            batches.setdefault((model, shard, feedback_id), []).append(number)
    fates: dict[Position, FeedbackOutcome] = {}
    for position in said.received:
        fate = _outcome_of(position, said)
        if isinstance(fate, FeedbackOutcome):
            fates[position] = fate
        else:
            lost.append(f"{_format_position(position)} {fate}")
    for who, entry in said.entries.items():
        numbers = sorted(batches.pop(who, []))
        name = f"{entry.feedback_id} ({_format_position(entry.source)})"
        if len(numbers) > 1:
            doubled.append(f"{name} is in batches {numbers}")
        elif entry.batch is None and numbers:
            doubled.append(f"{name} is {_state_of(entry)} and in batch {numbers[0]}")
        elif entry.batch is not None and numbers != [entry.batch.number]:
            lost.append(
                f"{name} counts as a member of batch {entry.batch.number}, which does not name it"
            )
    doubled += [
        f"{feedback_id} of {model}#{shard} is in batches {found} and has no entry"
        for (model, shard, feedback_id), found in batches.items()
    ]
    return Reconciliation(
        len(said.received), len(said.scored_from), fates, tuple(lost), tuple(doubled)
    )


def _read_topics(records: Iterable[Record]) -> _TopicContents:
    said = _TopicContents()
    table: dict[bytes, bytes] = {}
    for record in records:
        here = record.position
        if record.topic == FEEDBACK_RECEIVED:
            if not _is_control_event(record):
                said.received.append(here)
        elif record.topic in (
            dead_letter_topic(FEEDBACK_RECEIVED),
            dead_letter_topic(FEEDBACK_SCORED),
        ):
            if notice := DeadLetterInfo.from_headers(record.headers):
                said.dead.add(notice.source)
        elif record.topic == DATASET_ENTRIES and record.key is not None:
            table.pop(record.key, None)
            if record.value is not None:
                table[record.key] = record.value
        elif record.topic == TRAINING_BATCHES:
            batch = decode(record.value, record.headers, BatchReady).event
            said.manifests.setdefault((batch.model, batch.shard, batch.number), {})[
                batch.manifest.digest
            ] = batch.manifest
        elif record.topic == FEEDBACK_SCORED and not _is_control_event(record):
            said.scored[here] = decode(record.value, record.headers, FeedbackScored).event
            said.scored_from.setdefault(said.scored[here].received, []).append(here)
    entries = (
        entry
        for entry in TableState.from_records(table.items()).entries
        if entry.decision != "withdrawal"
    )
    said.entries = {(entry.model, entry.shard, entry.feedback_id): entry for entry in entries}
    return said


def _is_control_event(record: Record) -> bool:
    """Whether a record is about feedback: somebody is to be forgotten, or a wait has ended."""
    try:
        said = decode(
            record.value,
            record.headers,
            FeedbackReceived,
            *CONTROL_EVENTS,
            default=FeedbackReceived,
        ).event
    except Unprocessable:
        return False
    return not isinstance(said, FeedbackReceived)


def _outcome_of(position: Position, topics: _TopicContents) -> FeedbackOutcome | str:
    """The one place of a piece of feedback, or what is wrong with it."""
    scored = topics.scored_from.get(position, [])
    if position in topics.dead or (scored and all(at in topics.dead for at in scored)):
        return (
            FeedbackOutcome("dead_letter")
            if not scored or position not in topics.dead
            else "is a dead letter, and was scored"
        )
    if not scored:
        return "was neither scored nor rejected"
    event = topics.scored[scored[0]]
    entry = topics.entries.get((event.model, event.shard, event.identity))
    if entry is None:
        return f"({event.identity}) was scored, and nothing was decided about it"
    if entry.source not in topics.scored:
        return f"({event.identity}) was decided at {_format_position(entry.source)}, where it does not stand"
    if topics.scored[entry.source].received != position:
        return FeedbackOutcome("dropped", None, "duplicate")
    return FeedbackOutcome(_state_of(entry), entry.decision, entry.reason)


def _state_of(entry: DatasetEntry) -> OutcomeState:
    return "member" if entry.batch is not None else "waiting" if entry.is_waiting else "dropped"


def _format_position(position: Position) -> str:
    return f"{position.topic}/{position.partition}/{position.offset}"
