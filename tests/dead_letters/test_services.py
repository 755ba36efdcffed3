"""The services on a real broker: malformed records, records over the size limit, and dead letters
that cannot be written.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from shared.errors import Misconfigured, Unprocessable
from shared.events import FeedbackReceived, FeedbackScored, Position
from shared.kafka.client import KafkaProducer
from shared.messaging.bus import Record
from shared.messaging.codec import decode, encode
from shared.messaging.dead_letters import DeadLetterInfo, original_headers
from shared.messaging.topics import (
    DATASET_ENTRIES,
    FEEDBACK_RECEIVED,
    FEEDBACK_SCORED,
    MAX_APPLICATION_RECORD_BYTES,
    MAX_RECORD_BYTES,
    dead_letter_topic,
)
from shared.storage.dataset_entries import DatasetEntry
from tests.dead_letters.kafka_access import (
    all_committed,
    committed,
    put,
    read_all,
    service,
    set_max_message_bytes,
)
from tests.dead_letters.test_malformed_input import SEED, golden_event
from tests.support.odd_input import MAKERS, OddInput, generate_odd_inputs
from tests.support.scored_feedback import scored

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

CASES = 400

HELLO = golden_event(FeedbackReceived)


def hello(event_id: str, **changed: Any) -> bytes:
    return json.dumps(HELLO | {"event_id": event_id} | changed).encode()


def by_source(letters: Sequence[Record]) -> dict[Position, Record]:
    """Index dead letters by the position of their record, one for each."""
    letters_by_source = {
        info.source: letter
        for letter in letters
        if (info := DeadLetterInfo.from_headers(letter.headers))
    }
    assert len(letters_by_source) == len(letters)
    return letters_by_source


def assert_reconciled(
    records: Sequence[Record],
    processed: Counter[Position],
    letters: dict[Position, Record],
    cases: Sequence[OddInput],
) -> None:
    """Check that every source record was either processed or dead-lettered, and that a dead letter
    equals its record.
    """
    case_of = {(case.key, case.value, case.headers): case for case in cases}
    assert {case_of[record.key, record.value, record.headers].maker for record in records} == set(
        MAKERS
    )
    assert {record.position for record in records} == processed.keys() | letters.keys()
    assert not processed.keys() & letters.keys()
    for record in records:
        outcome = case_of[record.key, record.value, record.headers].outcome
        assert outcome in ("either", "letter" if record.position in letters else "event")
        if letter := letters.get(record.position):
            assert (letter.key, letter.value, original_headers(letter.headers)) == (
                record.key,
                record.value,
                original_headers(record.headers),
            )


async def test_every_malformed_record_has_a_dead_letter(broker_apart: str, tmp_path: Path) -> None:
    cases = generate_odd_inputs(SEED, CASES, HELLO)
    feedback = service("feedback", broker_apart, tmp_path)
    await put(
        broker_apart, FEEDBACK_RECEIVED, [(case.key, case.value, case.headers) for case in cases]
    )
    await feedback.start()
    try:
        await all_committed(broker_apart, feedback, "ratchet-feedback", FEEDBACK_RECEIVED)
    finally:
        status = feedback.stop()
    assert status == 0, feedback.log
    received = await read_all(broker_apart, FEEDBACK_RECEIVED)
    assert len(received) == CASES
    events = [
        decode(record.value, record.headers, FeedbackScored).event
        for record in await read_all(broker_apart, FEEDBACK_SCORED)
    ]
    positions = Counter(event.received for event in events)
    assert set(positions.values()) == {1}
    assert_reconciled(
        received,
        positions,
        by_source(await read_all(broker_apart, dead_letter_topic(FEEDBACK_RECEIVED))),
        cases,
    )


async def test_every_malformed_scored_record_has_a_dead_letter(
    broker_apart: str, tmp_path: Path
) -> None:
    cases = generate_odd_inputs(SEED, CASES, golden_event(FeedbackScored))
    dataset = service("dataset", broker_apart, tmp_path)
    await put(
        broker_apart, FEEDBACK_SCORED, [(case.key, case.value, case.headers) for case in cases]
    )
    await dataset.start()
    try:
        await all_committed(broker_apart, dataset, "ratchet-dataset", FEEDBACK_SCORED)
    finally:
        status = dataset.stop()
    assert status == 0, dataset.log
    records = await read_all(broker_apart, FEEDBACK_SCORED)
    changes = await read_all(broker_apart, DATASET_ENTRIES)
    entries = [
        DatasetEntry.model_validate_json(value)
        for value in {change.key: change.value for change in changes}.values()
        if value
    ]
    ids = {entry.feedback_id for entry in entries}
    positions = Counter(record.position for record in records if identity(record) in ids)
    assert {entry.source for entry in entries} <= positions.keys()
    assert_reconciled(
        records,
        positions,
        by_source(await read_all(broker_apart, dead_letter_topic(FEEDBACK_SCORED))),
        cases,
    )


def identity(record: Record) -> str | None:
    try:
        return decode(record.value, record.headers, FeedbackScored).event.identity
    except Unprocessable:
        return None


async def test_records_at_and_over_the_size_limit(broker_apart: str, tmp_path: Path) -> None:
    """Every record that the broker accepts becomes an event or a dead letter, even if compression
    hid its size. The broker rejects larger records at the producer.
    """
    with pytest.raises(Misconfigured, match=r"a record is too large for feedback\.received"):
        await put(
            broker_apart, FEEDBACK_RECEIVED, [(None, b"x" * MAX_APPLICATION_RECORD_BYTES, [])]
        )
    max_value = MAX_APPLICATION_RECORD_BYTES - 200
    largest = hello("largest", output="word " * 20).ljust(max_value)
    await put(
        broker_apart,
        FEEDBACK_RECEIVED,
        [(b"k", largest, []), (b"k", b"x" * max_value, [("h", None)])],
    )
    compressed = [b"y" * (6 << 20), hello("too-large", output="z" * (3 << 20))]
    producer = AIOKafkaProducer(
        bootstrap_servers=broker_apart, compression_type="gzip", max_request_size=8 << 20
    )
    await producer.start()
    try:
        for value in compressed:
            await producer.send_and_wait(FEEDBACK_RECEIVED, value, b"k")
    finally:
        await producer.stop()
    await put(broker_apart, FEEDBACK_RECEIVED, [(b"k", hello("last"), [])])
    feedback = service("feedback", broker_apart, tmp_path)
    await feedback.start()
    try:
        await all_committed(broker_apart, feedback, "ratchet-feedback", FEEDBACK_RECEIVED)
    finally:
        status = feedback.stop()
    assert status == 0, feedback.log
    events = [
        decode(record.value, record.headers, FeedbackScored).event
        for record in await read_all(broker_apart, FEEDBACK_SCORED)
    ]
    assert [event.event_id for event in events] == ["largest", "last"]
    letters = await read_all(broker_apart, dead_letter_topic(FEEDBACK_RECEIVED))
    assert [letter.value for letter in letters] == [b"x" * max_value, *compressed]
    infos = [DeadLetterInfo.from_headers(letter.headers) for letter in letters]
    assert [info and info.error for info in infos] == [
        "Undecodable",
        "Undecodable",
        "TooLarge",
    ]


@pytest.mark.parametrize(
    ("name", "topic"), [("feedback", FEEDBACK_RECEIVED), ("dataset", FEEDBACK_SCORED)]
)
async def test_a_service_stops_instead_of_dropping_and_resumes(
    name: str, topic: str, broker_apart: str, tmp_path: Path
) -> None:
    good = [
        (b"k", hello(event_id), [])
        if name == "feedback"
        else (b"k", *encode(scored(event_id), "/test"))
        for event_id in ("a", "b")
    ]
    dead = dead_letter_topic(topic)
    await set_max_message_bytes(broker_apart, dead, 100)
    running = service(name, broker_apart, tmp_path)
    await running.start()
    await put(broker_apart, topic, [good[0], (b"k", b"{" + b"x" * 200, [("trace", b"1")]), good[1]])
    assert await running.wait_for_exit() == 2
    assert f"a record is too large for {dead}; raise its max.message.bytes" in running.log
    assert set((await committed(broker_apart, f"ratchet-{name}", topic)).values()) <= {1}, (
        "the dead letter is not committed"
    )
    assert await read_all(broker_apart, dead) == []
    await set_max_message_bytes(broker_apart, dead, MAX_RECORD_BYTES)
    await running.start()
    try:
        await all_committed(broker_apart, running, f"ratchet-{name}", topic)
    finally:
        status = running.stop()
    assert status == 0, running.log
    (letter,) = await read_all(broker_apart, dead)
    assert (letter.value, original_headers(letter.headers)) == (
        b"{" + b"x" * 200,
        (("trace", b"1"),),
    )
    if name == "feedback":
        event_ids = {
            decode(record.value, record.headers, FeedbackScored).event.event_id
            for record in await read_all(broker_apart, FEEDBACK_SCORED)
        }
    else:
        changes = await read_all(broker_apart, DATASET_ENTRIES)
        event_ids = {
            DatasetEntry.model_validate_json(change.value).feedback_id.split("|")[-1]
            for change in changes
            if change.value
        }
    assert event_ids == {"a", "b"}


async def test_a_record_without_key_and_value_can_be_dead_letter(broker_apart: str) -> None:
    producer = KafkaProducer(broker_apart)
    await producer.start()
    try:
        await producer.send(FEEDBACK_RECEIVED, None, None, [("trace", None)])
        await producer.send(FEEDBACK_RECEIVED, None, None, [("trace", b"2")], partition=3)
        await producer.send(FEEDBACK_RECEIVED, b"k", b"v", [], partition=99)
    finally:
        await producer.stop()
    records = await read_all(broker_apart, FEEDBACK_RECEIVED)
    assert {(record.key, record.value, record.headers) for record in records} == {
        (None, None, (("trace", None),)),
        (None, None, (("trace", b"2"),)),
        (b"k", b"v", ()),
    }
    assert {record.partition for record in records if record.headers == (("trace", b"2"),)} == {3}
