"""Transport to Kafka."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    InvalidTimestampError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
)

from ratchet_client.event import FeedbackRecord
from ratchet_client.transport import RecordRefused, TransportUnavailable

_SIZE_ERRORS = (MessageSizeTooLargeError, RecordListTooLargeError)


class KafkaTransport:
    """Sends records with acknowledgement of all in-sync replicas.

    `settings` are further settings of aiokafka's producer, such as its security.
    """

    def __init__(self, bootstrap_servers: str, topic: str, settings: Mapping[str, Any]) -> None:
        defaults = {"acks": "all", "request_timeout_ms": 10_000, "retry_backoff_ms": 200}
        # A duplicate event counts once. With a producer id, every send after a batch that the
        # broker refused would fail, and recovery from an outage is not certain.
        fixed = {"enable_idempotence": False, "bootstrap_servers": bootstrap_servers}
        self._settings = {**defaults, **settings, **fixed}
        self._topic = topic
        self._producer: AIOKafkaProducer | None = None

    async def send(self, records: Sequence[FeedbackRecord]) -> None:
        try:
            producer = self._producer or await self._start()
            deliveries = []
            for index, record in enumerate(records):
                try:
                    deliveries.append(
                        await producer.send(self._topic, record.value, key=record.key)
                    )
                except MessageSizeTooLargeError as error:
                    raise RecordRefused(index, str(error)) from error
            outcomes = await asyncio.gather(*deliveries, return_exceptions=True)
            for index, outcome in enumerate(outcomes):
                if isinstance(outcome, _SIZE_ERRORS):
                    await self._send_alone(producer, records[index], index)
                elif isinstance(outcome, BaseException):
                    raise outcome
        except KafkaError as error:
            raise TransportUnavailable(_reason(error)) from error

    async def _send_alone(
        self, producer: AIOKafkaProducer, record: FeedbackRecord, index: int
    ) -> None:
        """Send a record of a batch that was refused for its size: alone, it may fit."""
        try:
            await producer.send_and_wait(self._topic, record.value, key=record.key)
        except _SIZE_ERRORS as error:
            raise RecordRefused(index, str(error)) from error

    async def close(self) -> None:
        if self._producer is not None:
            await self._producer.stop()

    async def _start(self) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(**self._settings)
        try:
            await producer.start()
        except BaseException:
            await producer.stop()
            raise
        self._producer = producer
        return producer


def _reason(error: KafkaError) -> str:
    if isinstance(error, InvalidTimestampError):
        return f"Kafka refuses the time of a record; check this machine's clock: {error!r}"
    return f"Kafka: {error!r}"
