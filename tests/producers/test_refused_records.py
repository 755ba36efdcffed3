"""Records that the broker refuses: reported alone, and no obstacle to the records after them."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import InvalidTimestampError, MessageSizeTooLargeError

from ratchet.cli.feedback import send_events
from ratchet_client.event import FeedbackRecord
from ratchet_client.kafka import KafkaTransport
from ratchet_client.transport import RecordRefused, TransportUnavailable
from shared.errors import BusUnavailable, Misconfigured
from shared.events import FeedbackReceived
from shared.kafka.client import KafkaProducer
from shared.kafka.idempotent_producer import IdempotentProducer
from shared.messaging.bus import Record
from shared.messaging.topics import (
    FEEDBACK_RECEIVED,
    FEEDBACK_SCORED,
    MAX_APPLICATION_RECORD_BYTES,
    MAX_RECORD_BYTES,
)
from tests.dead_letters.kafka_access import read_all, service, set_topic
from tests.feedback.test_service import feedback_data

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]

TOO_LARGE = b"x" * MAX_APPLICATION_RECORD_BYTES
"""The value of a record that `feedback.received` does not take."""


MAX_AGE = "message.timestamp.before.max.ms"
PROBE = b"probe"


async def limit(broker: str, setting: str, value: str, refused: bool = True) -> None:
    """Change a setting of `feedback.received`, and wait until the broker applies it: until it
    refuses a record of 9000 bytes that was created a moment ago, or accepts it.
    """
    await set_topic(broker, FEEDBACK_RECEIVED, setting, value)
    producer = AIOKafkaProducer(bootstrap_servers=broker, linger_ms=20)
    await producer.start()
    try:
        async with asyncio.timeout(20):
            while True:
                try:
                    await producer.send_and_wait(
                        FEEDBACK_RECEIVED, PROBE.ljust(9000, b"."), partition=3
                    )
                except (MessageSizeTooLargeError, InvalidTimestampError):
                    if refused:
                        return
                else:
                    if not refused:
                        return
    finally:
        await producer.stop()


async def values_of(broker: str, topic: str = FEEDBACK_RECEIVED) -> list[list[bytes | None]]:
    """Return the values in each partition that has records, in order, without probes."""
    partitions: dict[int, list[Record]] = {}
    for record in await read_all(broker, topic):
        if not (record.value or b"").startswith(PROBE):
            partitions.setdefault(record.partition, []).append(record)
    return [[record.value for record in partitions[number]] for number in sorted(partitions)]


@pytest.mark.parametrize(
    ("fault", "topic"), [("too large", FEEDBACK_RECEIVED), ("an hour ahead", FEEDBACK_SCORED)]
)
async def test_others_in_flight_arrive_once_and_in_order(
    new_topics: str, fault: str, topic: str
) -> None:
    ahead = datetime.now(UTC) + timedelta(hours=1, minutes=5)
    producer = IdempotentProducer(
        bootstrap_servers=new_topics, linger_ms=5, max_request_size=MAX_RECORD_BYTES
    )
    await producer.start()
    deliveries: list[Any] = []

    async def send_refused() -> None:
        batch = producer.create_batch()
        if fault == "too large":
            batch.append(timestamp=None, key=None, value=TOO_LARGE)
        else:
            batch.append(timestamp=int(ahead.timestamp() * 1000), key=None, value=b"early")
        batch.close()
        deliveries.append(await producer.send_batch(batch, topic, partition=0))

    try:
        for number in range(600):
            value = b"%03d " % number + b"." * 200
            deliveries.append(await producer.send(topic, value, partition=number % 2))
            if number % 200 == 100:
                await send_refused()
        outcomes = await asyncio.gather(*deliveries, return_exceptions=True)
    finally:
        await producer.stop()
    failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    expected = MessageSizeTooLargeError if fault == "too large" else InvalidTimestampError
    assert [type(failure) for failure in failures] == [expected] * 3
    values = await values_of(new_topics, topic)
    numbers = [[int((value or b"")[:3]) for value in some] for some in values]
    assert numbers == [list(range(0, 600, 2)), list(range(1, 600, 2))]


@pytest.mark.parametrize("age", [timedelta(days=200), timedelta(hours=-2)])
async def test_feedback_is_kept_from_its_arrival(new_topics: str, age: timedelta) -> None:
    """Whatever time a producer's record has, imported or of a wrong clock."""
    sent_at = datetime.now(UTC)
    producer = AIOKafkaProducer(bootstrap_servers=new_topics)
    await producer.start()
    try:
        claimed = int((sent_at - age).timestamp() * 1000)
        await producer.send_and_wait(FEEDBACK_RECEIVED, b"{}", timestamp_ms=claimed)
    finally:
        await producer.stop()
    (record,) = await read_all(new_topics, FEEDBACK_RECEIVED)
    assert record.timestamp is not None
    assert abs(record.timestamp - sent_at) < timedelta(minutes=5)


async def test_only_the_record_at_fault_is_reported(new_topics: str) -> None:
    """Records of one batch share the broker's answer; what fits is delivered."""
    await limit(new_topics, "max.message.bytes", "8000")
    producer = KafkaProducer(new_topics)
    await producer.start()
    try:
        sizes = [4000, 9000, 4000, 4000]
        deliveries = [
            await producer.send_nowait(FEEDBACK_RECEIVED, b"k", b"x" * size, []) for size in sizes
        ]
        outcomes = await asyncio.gather(*deliveries, return_exceptions=True)
        await producer.send(FEEDBACK_RECEIVED, b"k", b"later", [])
    finally:
        await producer.stop()
    assert [type(outcome) for outcome in outcomes] == [
        type(None),
        Misconfigured,
        type(None),
        type(None),
    ]
    (values,) = await values_of(new_topics)
    assert sorted(len(value or b"") for value in values) == [5, 4000, 4000, 4000]


async def test_an_import_names_the_event_that_is_too_large(new_topics: str) -> None:
    events = [
        FeedbackReceived.model_validate(feedback_data("support", name, output=output))
        for name, output in (("a", "x"), ("b", "x" * MAX_APPLICATION_RECORD_BYTES), ("c", "x"))
    ]
    with pytest.raises(Misconfigured, match=r"event 'b': .*too large.*sent before it: 1"):
        await send_events(new_topics, events)


async def test_a_wrong_clock_is_named_and_recovered_from(new_topics: str) -> None:
    """The topic refuses whatever is older than no time at all, as it does with a clock behind."""
    producer = KafkaProducer(new_topics)
    await producer.start()
    try:
        await producer.send(FEEDBACK_RECEIVED, b"k", b"first", [])
        await limit(new_topics, MAX_AGE, "0")
        with pytest.raises(BusUnavailable, match="clock"):
            await producer.send(FEEDBACK_RECEIVED, b"k", b"early", [])
        await limit(new_topics, MAX_AGE, "60000", refused=False)
        await producer.send(FEEDBACK_RECEIVED, b"k", b"later", [])
    finally:
        await producer.stop()
    assert await values_of(new_topics) == [[b"first", b"later"]]


async def test_the_intake_refuses_one_event_and_goes_on(new_topics: str, tmp_path: Path) -> None:
    intake = service("feedback", new_topics, tmp_path)
    await intake.start()

    async def post(client: httpx.AsyncClient, **outputs: str) -> httpx.Response:
        events = [feedback_data("support", name, output=outputs[name]) for name in outputs]
        return await client.post(
            f"http://127.0.0.1:{intake.port}/v1/feedback",
            json=[event | {"user_id": "ada"} for event in events],
        )

    try:
        async with httpx.AsyncClient(timeout=20) as client:
            await limit(new_topics, "max.message.bytes", "8000")
            refused = await post(client, a="x" * 4000, b="x" * 9000, c="x" * 4000)
            assert (refused.status_code, refused.json()["index"]) == (413, 1), refused.text
            assert "max.message.bytes" in refused.json()["detail"]
            assert (await post(client, d="fine")).status_code == 202

            await limit(new_topics, MAX_AGE, "0")
            early = await post(client, e="early")
            assert (early.status_code, early.headers["retry-after"]) == (503, "5")
            assert "clock" in early.json()["detail"]
            await limit(new_topics, MAX_AGE, "60000", refused=False)
            assert (await post(client, e="in time")).status_code == 202
    finally:
        intake.stop()


@pytest.mark.parametrize("settings", [{}, {"enable_idempotence": True}])
async def test_the_client_drops_one_event_and_goes_on(
    new_topics: str, settings: dict[str, Any]
) -> None:
    await limit(new_topics, "max.message.bytes", "8000")
    transport = KafkaTransport(new_topics, FEEDBACK_RECEIVED, {"linger_ms": 20, **settings})
    records = [FeedbackRecord(f"e{size}", b"k", b"x" * size) for size in (4000, 4001, 9000, 4002)]
    try:
        with pytest.raises(RecordRefused) as refused:
            await transport.send(records)
        assert refused.value.index == 2
        del records[refused.value.index]
        await transport.send(records)
        await limit(new_topics, MAX_AGE, "0")
        with pytest.raises(TransportUnavailable, match="clock"):
            await transport.send([FeedbackRecord("early", b"k", b"early")])
        await limit(new_topics, MAX_AGE, "60000", refused=False)
        await transport.send([FeedbackRecord("later", b"k", b"later")])
    finally:
        await transport.close()
    (values,) = await values_of(new_topics)
    assert {len(value or b"") for value in values} == {4000, 4001, 4002, 5}
    assert values[-1] == b"later"
