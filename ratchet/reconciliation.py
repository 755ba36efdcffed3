"""Reconciliation of all accepted feedback, from the topics and snapshots alone.

Each event is in exactly one state: in a dead-letter topic, waiting for a batch, a member of one, or
dropped with a reason. A sentence describes each event that is not. This requires topics read from
their beginning while no service processes them, with nothing older than the de-duplication window.
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
"""Events on the feedback topics that are not feedback."""

OutcomeState = Literal["dead_letter", "dropped", "waiting", "member"]
FeedbackKey = tuple[str, int, str]
"""A model, a shard and a feedback ID."""


@dataclass(frozen=True, slots=True)
class FeedbackOutcome:
    """State of an event. `reason` is that of its entry, or `duplicate`; a dead letter has neither
    decision nor reason.
    """

    state: OutcomeState
    decision: EntryDecision | None = None
    reason: str = ""


@dataclass(frozen=True)
class Reconciliation:
    """Outcomes by position in `feedback.received`. `lost` and `duplicated` describe events that are
    in no state, or in more than one.
    """

    accepted: int
    scored: int
    outcomes: dict[Position, FeedbackOutcome]
    lost: tuple[str, ...]
    duplicated: tuple[str, ...]


@dataclass
class _TopicContents:
    """Contents of the topics."""

    received: list[Position] = field(default_factory=list)
    dead: set[Position] = field(default_factory=set)
    scored: dict[Position, FeedbackScored] = field(default_factory=dict)
    scored_from: dict[Position, list[Position]] = field(default_factory=dict)
    entries: dict[FeedbackKey, DatasetEntry] = field(default_factory=dict)
    manifests: dict[tuple[str, int, int], dict[str, Artefact]] = field(default_factory=dict)


def reconcile(
    records: Iterable[Record], read: Callable[[Artefact], BatchManifest]
) -> Reconciliation:
    """Reconcile all records of `TOPICS_NEEDED`. `read` returns the manifest of a claim check."""
    topics = _read_topics(records)
    lost: list[str] = []
    duplicated: list[str] = []
    batches: dict[FeedbackKey, list[int]] = {}
    for (model, shard, number), manifests in topics.manifests.items():
        if len(manifests) > 1:
            duplicated.append(
                f"batch {number} of {model}#{shard} was announced with {len(manifests)} manifests"
            )
        for feedback_id in {
            name for manifest in manifests.values() for name in read(manifest).feedback_ids
        }:
            batches.setdefault((model, shard, feedback_id), []).append(number)
    outcomes: dict[Position, FeedbackOutcome] = {}
    for position in topics.received:
        outcome = _outcome_of(position, topics)
        if isinstance(outcome, FeedbackOutcome):
            outcomes[position] = outcome
        else:
            lost.append(f"{_format_position(position)} {outcome}")
    for key, entry in topics.entries.items():
        numbers = sorted(batches.pop(key, []))
        name = f"{entry.feedback_id} ({_format_position(entry.source)})"
        if len(numbers) > 1:
            duplicated.append(f"{name} is in batches {numbers}")
        elif entry.batch is None and numbers:
            duplicated.append(f"{name} is {_state_of(entry)} and in batch {numbers[0]}")
        elif entry.batch is not None and numbers != [entry.batch.number]:
            lost.append(
                f"{name} has an entry as member of batch {entry.batch.number}, "
                "which does not contain it"
            )
    duplicated += [
        f"{feedback_id} of {model}#{shard} is in batches {numbers} but has no entry"
        for (model, shard, feedback_id), numbers in batches.items()
    ]
    return Reconciliation(
        len(topics.received), len(topics.scored_from), outcomes, tuple(lost), tuple(duplicated)
    )


def _read_topics(records: Iterable[Record]) -> _TopicContents:
    topics = _TopicContents()
    table: dict[bytes, bytes] = {}
    for record in records:
        here = record.position
        if record.topic == FEEDBACK_RECEIVED:
            if not _is_control_event(record):
                topics.received.append(here)
        elif record.topic in (
            dead_letter_topic(FEEDBACK_RECEIVED),
            dead_letter_topic(FEEDBACK_SCORED),
        ):
            if info := DeadLetterInfo.from_headers(record.headers):
                topics.dead.add(info.source)
        elif record.topic == DATASET_ENTRIES and record.key is not None:
            table.pop(record.key, None)
            if record.value is not None:
                table[record.key] = record.value
        elif record.topic == TRAINING_BATCHES:
            batch = decode(record.value, record.headers, BatchReady).event
            if batch.lane == "master":
                continue  # a dataset from a file holds no feedback
            topics.manifests.setdefault((batch.model, batch.shard, batch.number), {})[
                batch.manifest.digest
            ] = batch.manifest
        elif record.topic == FEEDBACK_SCORED and not _is_control_event(record):
            topics.scored[here] = decode(record.value, record.headers, FeedbackScored).event
            topics.scored_from.setdefault(topics.scored[here].received, []).append(here)
    entries = (
        entry
        for entry in TableState.from_records(table.items()).entries
        if entry.decision != "withdrawal"
    )
    topics.entries = {(entry.model, entry.shard, entry.feedback_id): entry for entry in entries}
    return topics


def _is_control_event(record: Record) -> bool:
    """True if a record is a withdrawal or the end of a wait, not feedback."""
    try:
        event = decode(
            record.value,
            record.headers,
            FeedbackReceived,
            *CONTROL_EVENTS,
            default=FeedbackReceived,
        ).event
    except Unprocessable:
        return False
    return not isinstance(event, FeedbackReceived)


def _outcome_of(position: Position, topics: _TopicContents) -> FeedbackOutcome | str:
    """Return the outcome of an event, or a description of its fault."""
    scored = topics.scored_from.get(position, [])
    if position in topics.dead or (scored and all(at in topics.dead for at in scored)):
        return (
            FeedbackOutcome("dead_letter")
            if not scored or position not in topics.dead
            else "is a dead letter and was scored"
        )
    if not scored:
        return "was neither scored nor rejected"
    event = topics.scored[scored[0]]
    entry = topics.entries.get((event.model, event.shard, event.identity))
    if entry is None:
        return f"({event.identity}) was scored but has no entry"
    if entry.source not in topics.scored:
        return (
            f"({event.identity}) has an entry for {_format_position(entry.source)}, where it is not"
        )
    if topics.scored[entry.source].received != position:
        return FeedbackOutcome("dropped", None, "duplicate")
    return FeedbackOutcome(_state_of(entry), entry.decision, entry.reason)


def _state_of(entry: DatasetEntry) -> OutcomeState:
    return "member" if entry.batch is not None else "waiting" if entry.is_waiting else "dropped"


def _format_position(position: Position) -> str:
    return f"{position.topic}/{position.partition}/{position.offset}"
