"""Baseline of the streams benchmark: a plain aiokafka loop that does the same work per event,
without durable state other than its output.

    python -m benchmarks.streams.plain_consumer feedback|dataset GROUP BROKERS MODELS

`feedback` decodes, validates, scores and produces. `dataset` decodes, decides with a ledger for
each model, closes batches in memory, and produces one record. Both fetch and send in bulk, and
commit delivered records once a second. Runs until it is terminated.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiokafka import AIOKafkaConsumer, TopicPartition

from services.dataset.ledger.ledger import Ledger
from services.feedback.scoring import SOURCE, Policies, score
from shared.clock import SystemClock
from shared.config.models import Models, load_models
from shared.events import Artefact, FeedbackScored, Position
from shared.identity import digest_of
from shared.kafka.client import READ_COMMITTED, KafkaProducer, record_of
from shared.messaging.bus import Record
from shared.messaging.codec import decode, encode
from shared.messaging.topics import FEEDBACK_RECEIVED, FEEDBACK_SCORED

ENTRIES = "benchmark.entries"
COMMIT_SECONDS = 1.0
UNWRITTEN = Artefact(uri="unwritten", digest=digest_of(b""))
"""Manifest of the batches that close in memory only."""
OutputRecord = tuple[str, bytes, bytes, list[tuple[str, bytes]]]
ProcessRecord = Callable[[Record], OutputRecord]


def feedback_work(models: Models) -> ProcessRecord:
    policies = Policies(models)

    def work(record: Record) -> OutputRecord:
        scored = score(record, policies)
        return FEEDBACK_SCORED, scored.key.encode(), *encode(scored.event, SOURCE)

    return work


def dataset_work(models: Models) -> ProcessRecord:
    ledgers: dict[tuple[str, int], Ledger] = {}

    def work(record: Record) -> OutputRecord:
        event = decode(record.value, record.headers, FeedbackScored).event
        ledger = ledgers.setdefault(
            (event.model, event.shard), Ledger(models.get(event.model), event.shard)
        )
        position = Position(topic=record.topic, partition=record.partition, offset=record.offset)
        update = ledger.decide(event, position, event.occurred_at)
        entry = update.entry
        assert entry is not None
        while update.batch is not None:
            # A batch that stays open would be planned again at every later event.
            update = ledger.close_batch(update.batch, UNWRITTEN)
        return ENTRIES, entry.key.encode(), entry.encode(), []

    return work


async def main(stream: str, group: str, bootstrap_servers: str, folder: str) -> None:
    models = load_models(Path(folder))
    topic, work = (
        (FEEDBACK_RECEIVED, feedback_work(models))
        if stream == "feedback"
        else (FEEDBACK_SCORED, dataset_work(models))
    )
    producer = KafkaProducer(bootstrap_servers)
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=bootstrap_servers,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level=READ_COMMITTED,
    )
    await producer.start()
    await consumer.start()
    clock = SystemClock()
    offsets: dict[TopicPartition, int] = {}
    deliveries: list[Awaitable[None]] = []
    committed_at = clock.monotonic()
    while True:
        for partition, batch in (await consumer.getmany(timeout_ms=200, max_records=1000)).items():
            deliveries += [await producer.send_nowait(*work(record_of(raw))) for raw in batch]
            offsets[partition] = batch[-1].offset + 1
        if offsets and clock.monotonic() - committed_at > COMMIT_SECONDS:
            for delivery in deliveries:
                await delivery
            await consumer.commit(offsets)
            deliveries.clear()
            committed_at = clock.monotonic()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
