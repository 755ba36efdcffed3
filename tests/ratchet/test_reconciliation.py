"""Reconciliation finds every kind of fault, and otherwise the outcome of every event."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from ratchet.demo.accounting import count_events
from ratchet.reconciliation import Reconciliation, reconcile
from shared.errors import Undecodable
from shared.events import Artefact, BatchCounts, BatchReady, Position
from shared.events.hyperparameters import Lane
from shared.identity import digest_of
from shared.messaging.bus import Record
from shared.messaging.codec import Header, encode
from shared.messaging.dead_letters import DeadLetterInfo
from shared.messaging.topics import (
    DATASET_ENTRIES,
    FEEDBACK_RECEIVED,
    FEEDBACK_SCORED,
    TRAINING_BATCHES,
    dead_letter_topic,
)
from shared.storage.dataset_entries import DatasetEntry, Membership
from shared.storage.snapshots import BatchManifest
from tests.support.scored_feedback import scored

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Topics:
    """Topics of one partition: two events in batch 0, one that waits, one dropped, one duplicate
    and one dead letter.
    """

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.manifests: dict[str, tuple[str, ...]] = {}
        for number in range(6):
            self.put(FEEDBACK_RECEIVED, b"{}")
            if number < 5:
                self.score(f"e{min(number, 3)}", number)
        self.letter(5)
        self.manifest("m0", 0, ("e0", "e1"))
        self.entry("e0", 0, batch=0)
        self.entry("e1", 1, batch=0)
        self.entry("e2", 2)
        self.entry("e3", 3, decision="dropped")

    def put(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        headers: tuple[Header, ...] = (),
    ) -> None:
        offset = sum(record.topic == topic for record in self.records)
        self.records.append(Record(topic, 0, offset, key, value, headers))

    def score(self, event_id: str, received: int) -> None:
        value, headers = encode(
            scored(
                event_id, received=Position(topic=FEEDBACK_RECEIVED, partition=0, offset=received)
            ),
            "/test",
        )
        self.put(FEEDBACK_SCORED, value, headers=tuple(headers))

    def letter(self, received: int) -> None:
        source = Position(topic=FEEDBACK_RECEIVED, partition=0, offset=received)
        notice = DeadLetterInfo.for_error(source, (), Undecodable("no"), "feedback", NOW)
        self.put(dead_letter_topic(FEEDBACK_RECEIVED), b"{}", headers=tuple(notice.headers()))

    def manifest(
        self, uri: str, number: int, members: tuple[str, ...], lane: Lane = "adaptive"
    ) -> None:
        artefact = Artefact(uri=uri, digest=digest_of(uri.encode()))
        self.manifests[uri] = members
        ready = BatchReady(
            event_id=f"b{number}",
            occurred_at=NOW,
            model="support",
            model_digest=digest_of(b""),
            batch_id=f"b{number}",
            shard=0,
            number=number,
            lane=lane,
            manifest=artefact,
            counts=BatchCounts(training=2, preference=0, negative=0, held_out=0),
            offsets=(),
        )
        value, headers = encode(ready, "/test")
        self.put(TRAINING_BATCHES, value, headers=tuple(headers))

    def entry(
        self, feedback_id: str, offset: int, *, decision: str = "training", batch: int | None = None
    ) -> None:
        manifest = Artefact(uri="m", digest=digest_of(b""))
        entry = DatasetEntry.model_validate(
            {
                "model": "support",
                "shard": 0,
                "feedback_id": feedback_id,
                "decision": decision,
                "reason": "low_quality" if decision == "dropped" else "approved",
                "source": Position(topic=FEEDBACK_SCORED, partition=0, offset=offset),
                "occurred_at": NOW,
                "logged_at": NOW,
                "batch": None
                if batch is None
                else Membership(number=batch, place=0, size=2, closed=1, manifest=manifest),
            }
        )
        self.put(DATASET_ENTRIES, entry.encode(), entry.key.encode())

    def reconciled(self) -> Reconciliation:
        return reconcile(self.records, self._read)

    def _read(self, artefact: Artefact) -> BatchManifest:
        members = self.manifests[artefact.uri]
        return BatchManifest(
            batch_id="b",
            model="support",
            model_digest=digest_of(b""),
            shard=0,
            number=0,
            lane="adaptive",
            files=(),
            counts=BatchCounts(training=2, preference=0, negative=0, held_out=0),
            dropped={},
            offsets=(),
            feedback_ids=members,
            mean_reward=0,
            previous=None,
        )


def test_every_event_is_in_one_state() -> None:
    result = Topics().reconciled()
    assert (result.lost, result.duplicated) == ((), ())
    fates = [
        (fate.state, fate.reason)
        for _, fate in sorted(result.outcomes.items(), key=lambda at: at[0].offset)
    ]
    assert fates == [
        ("member", "approved"),
        ("member", "approved"),
        ("waiting", "approved"),
        ("dropped", "low_quality"),
        ("dropped", "duplicate"),
        ("dead_letter", ""),
    ]
    events = count_events(result)
    assert events.balanced
    assert (events.sent, events.scored, events.batched, events.pending, events.dead_lettered) == (
        6,
        5,
        2,
        1,
        1,
    )
    assert events.dropped == {"low_quality": 1, "duplicate": 1}


def test_repeated_records_count_once() -> None:
    topics = Topics()
    topics.score("e0", 0)
    topics.letter(5)
    topics.manifest("m0", 0, ("e0", "e1"))
    result = topics.reconciled()
    assert (result.lost, result.duplicated) == ((), ())
    assert count_events(result).balanced


def test_datasets_from_files_hold_no_feedback() -> None:
    topics = Topics()
    topics.manifest("imported", 0, ("example",), "master")
    result = topics.reconciled()
    assert (result.lost, result.duplicated) == ((), ())
    assert count_events(result).balanced


Fault = Callable[[Topics], None]


@pytest.mark.parametrize(
    ("fault", "lost"),
    [
        (lambda topics: topics.put(FEEDBACK_RECEIVED, b"{}"), "was neither scored nor rejected"),
        (
            lambda topics: topics.put(DATASET_ENTRIES, None, b"support#0|e2"),
            "was scored but has no entry",
        ),
        (lambda topics: topics.entry("e2", 99), "where it is not"),
        (lambda topics: topics.entry("e2", 2, batch=0), "which does not contain it"),
        (lambda topics: topics.entry("e2", 2, batch=7), "which does not contain it"),
        (lambda topics: topics.letter(2), "is a dead letter and was scored"),
    ],
)
def test_lost_events_are_found(fault: Fault, lost: str) -> None:
    topics = Topics()
    fault(topics)
    result = topics.reconciled()
    assert len(result.lost) == 1
    assert lost in result.lost[0]


@pytest.mark.parametrize(
    ("fault", "doubled"),
    [
        (lambda topics: topics.manifest("m1", 1, ("e0", "e9")), "is in batches [0, 1]"),
        (lambda topics: topics.entry("e0", 0), "is waiting and in batch 0"),
        (lambda topics: topics.entry("e0", 0, decision="dropped"), "is dropped and in batch 0"),
        (
            lambda topics: topics.manifest("other", 0, ("e0", "e1")),
            "was announced with 2 manifests",
        ),
        (lambda topics: topics.manifest("m1", 1, ("e9",)), "has no entry"),
    ],
)
def test_duplicated_events_are_found(fault: Fault, doubled: str) -> None:
    topics = Topics()
    fault(topics)
    result = topics.reconciled()
    assert doubled in result.duplicated[0]
