"""Announced batches, read from Kafka."""

from collections.abc import Iterable
from contextlib import suppress

from shared.errors import Unprocessable
from shared.events import BatchReady
from shared.kafka.security import PLAINTEXT, Security
from shared.kafka.topic_reader import KafkaTopicReader
from shared.messaging.bus import Record
from shared.messaging.codec import decode
from shared.messaging.topics import TRAINING_BATCHES


async def read_announced_batches(
    bootstrap_servers: str, security: Security = PLAINTEXT
) -> list[BatchReady]:
    """Read all announced batches, in the order of the log. Raises BusUnavailable."""
    reader = KafkaTopicReader(bootstrap_servers, [TRAINING_BATCHES], security)
    try:
        await reader.start()
        return batches_from_records(await reader.read_new())
    finally:
        await reader.stop()


def batches_from_records(records: Iterable[Record]) -> list[BatchReady]:
    """Return the batches that the records announce, without repetitions: a batch announced again
    after a crash is the same batch.
    """
    batches: dict[str, BatchReady] = {}
    for record in records:
        # The trainer sends invalid records to the dead-letter topic.
        with suppress(Unprocessable):
            event = decode(record.value, record.headers, BatchReady).event
            batches.setdefault(event.batch_id, event)
    return list(batches.values())


def newest_feedback_batch(
    batches: Iterable[BatchReady], model: str
) -> tuple[BatchReady | None, int]:
    """Return the newest batch of a model's feedback, in whichever shard, and the number of the
    batch after it. `batches` are in the order of the log.
    """
    of_feedback = [batch for batch in batches if batch.model == model and batch.lane != "master"]
    newest = of_feedback[-1] if of_feedback else None
    return newest, newest.number + 1 if newest else 0
