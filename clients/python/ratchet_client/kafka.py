"""Transport to Kafka."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from ratchet_client.event import FeedbackRecord
from ratchet_client.transport import RecordRefused, TransportUnavailable


class KafkaTransport:
    """Sends records with acknowledgement of all in-sync replicas.

    `settings` are further settings of aiokafka's producer, such as its security.
    """

    def __init__(self, bootstrap_servers: str, topic: str, settings: Mapping[str, Any]) -> None:
        # Not idempotent: a duplicate event counts once, and a producer without a producer id
        # recovers from any outage.
        defaults = {"acks": "all", "request_timeout_ms": 10_000, "retry_backoff_ms": 200}
        self._settings = {**defaults, **settings, "bootstrap_servers": bootstrap_servers}
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
        except KafkaError as error:
            raise TransportUnavailable(f"Kafka: {error!r}") from error
        for index, outcome in enumerate(outcomes):
            if isinstance(outcome, MessageSizeTooLargeError):
                raise RecordRefused(index, str(outcome)) from outcome
            if isinstance(outcome, BaseException):
                raise TransportUnavailable(f"Kafka: {outcome!r}") from outcome

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
