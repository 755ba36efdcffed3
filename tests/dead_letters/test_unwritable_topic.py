"""Dead letters that cannot be written: the handler raises, so that the record is not committed."""

import asyncio
from collections.abc import Awaitable

import pytest
import structlog
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from services.dataset.handlers import Dataset
from services.feedback.app import FeedbackHandler
from services.feedback.scoring import Policies
from shared.clock import ManualClock
from shared.errors import BusUnavailable
from shared.messaging.bus import MemoryBus, Record
from shared.messaging.codec import Headers
from shared.messaging.topics import DEAD_LETTER_SUFFIX, FEEDBACK_RECEIVED, FEEDBACK_SCORED
from shared.service.retry import RetryPolicy
from shared.storage.object_store import MemoryStore
from tests.dead_letters.test_malformed_input import MODELS, MemoryTable
from tests.support.runtime import runtime_of
from tests.support.scored_feedback import START

LOG = structlog.stdlib.get_logger("ratchet.test")
BROKEN = b'{"event_id": "e"'


class FullTopicBus(MemoryBus):
    """Rejects dead letters until `writable` is set."""

    writable = False

    async def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers
    ) -> None:
        if topic.endswith(DEAD_LETTER_SUFFIX) and not self.writable:
            raise BusUnavailable("full")
        await super().send(topic, key, value, headers)

    async def send_nowait(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers
    ) -> Awaitable[None]:
        return self.send(topic, key, value, headers)


async def test_feedback_stops_without_a_commit() -> None:
    bus = FullTopicBus()
    feedback = FeedbackHandler(
        Policies(MODELS), bus, runtime_of("feedback", ManualClock(START), log=LOG)
    )
    record = Record(FEEDBACK_RECEIVED, 0, 0, None, BROKEN)
    with pytest.raises(BusUnavailable):
        await (await feedback.handle(record))
    assert bus.topics == {}
    bus.writable = True
    await (await feedback.handle(record))
    assert [letter.value for letter in bus.topics[FEEDBACK_RECEIVED + DEAD_LETTER_SUFFIX]] == [
        BROKEN
    ]


async def test_dataset_stops_without_a_commit() -> None:
    bus, table = FullTopicBus(), MemoryTable()
    runtime = runtime_of("dataset", ManualClock(START), log=LOG)
    dataset = Dataset(MODELS, table, MemoryStore(), bus, runtime, RetryPolicy(attempts=1))
    await dataset.recover(dict)
    record = Record(FEEDBACK_SCORED, 0, 0, None, BROKEN)
    with pytest.raises(BusUnavailable):
        await asyncio.gather(*await dataset.handle(record, START))
    assert (bus.topics, table) == ({}, {})
    bus.writable = True
    await asyncio.gather(*await dataset.handle(record, START))
    assert [letter.value for letter in bus.topics[FEEDBACK_SCORED + DEAD_LETTER_SUFFIX]] == [BROKEN]


@pytest.mark.xfail(
    strict=True,
    raises=UnicodeDecodeError,
    reason="aiokafka requires UTF-8 header names; docs/dead-letters.md has a workaround",
)
def test_a_header_name_that_is_not_utf8_can_be_read() -> None:
    producer = {"is_transactional": 0, "producer_id": -1, "producer_epoch": -1, "base_sequence": -1}
    builder = DefaultRecordBatchBuilder(magic=2, compression_type=0, batch_size=1000, **producer)
    builder.append(0, 0, None, b"value", [("name", b"value")])
    raw = bytes(builder.build()).replace(b"name", b"n\xffme")
    assert [record.value for record in DefaultRecordBatch(raw)] == [b"value"]
