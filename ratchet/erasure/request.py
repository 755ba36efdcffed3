"""Withdrawal request: publish `UserForgotten`, and wait for the answer of every shard."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from shared.clock import Clock
from shared.config.model_file import ModelFile
from shared.errors import Unavailable, Unprocessable
from shared.events import ExamplesWithdrawn, Id, UserForgotten, feedback_id_of
from shared.kafka.client import KafkaProducer
from shared.kafka.security import PLAINTEXT, Security
from shared.kafka.topic_reader import KafkaTopicReader
from shared.messaging.codec import decode, encode
from shared.messaging.topics import DATASET_WITHDRAWALS, FEEDBACK_RECEIVED

SOURCE = "/ratchet/command-line"
POLL_SECONDS = 0.2

ShardPartition = tuple[str, int, int]
"""A model, a shard, and a partition of `feedback.received`."""


@dataclass
class WithdrawalProgress:
    """The answers received so far. Each shard answers once for each partition that the event was
    sent to, in one or several parts.
    """

    forgotten: Id
    expected: set[ShardPartition]
    _parts: dict[ShardPartition, dict[int, ExamplesWithdrawn]] = field(default_factory=dict)

    def add(self, event: ExamplesWithdrawn) -> None:
        """Record an answer; answers to other requests are ignored."""
        if event.forgotten == self.forgotten:
            parts = self._parts.setdefault((event.model, event.shard, event.received.partition), {})
            parts[event.part] = event

    def event_count(self, model: str) -> int:
        """Return the number of received events for a model."""
        return sum(len(parts) for (name, _, _), parts in self._parts.items() if name == model)

    @property
    def missing(self) -> list[ShardPartition]:
        """The expected answers that are not complete, sorted."""
        return sorted(
            place for place in self.expected if not self._is_complete(self._parts.get(place, {}))
        )

    def summary(self, model: str) -> dict[str, Any]:
        """Return the numbers of one model's withdrawal. `unread` lists the objects that could not
        be searched.
        """
        events = [
            event
            for (name, _, _), parts in self._parts.items()
            if name == model
            for event in parts.values()
        ]
        ids = {
            feedback_id
            for event in events
            for batch in event.batches
            for feedback_id in batch.feedback_ids
        }
        return {
            "model": model,
            "waiting": sum(event.waiting for event in events if event.part == 0),
            "batches": len({batch.batch_id for event in events for batch in event.batches}),
            "examples": len(ids),
            "unread": sorted({uri for event in events for uri in event.unread}),
        }

    @staticmethod
    def _is_complete(parts: dict[int, ExamplesWithdrawn]) -> bool:
        return any(len(parts) == event.parts for event in parts.values())


async def withdraw(
    bootstrap_servers: str,
    event: UserForgotten,
    models: Iterable[ModelFile],
    clock: Clock,
    timeout: float,
    on_progress: Callable[[str], None],
    security: Security = PLAINTEXT,
) -> WithdrawalProgress:
    """Publish the event and wait for all answers. `on_progress` receives status lines.

    The event goes to every partition, because the user's feedback may be on any of them and Kafka
    orders records within a partition only. Raises Unavailable if answers are missing after
    `timeout` seconds, and BusUnavailable.
    """
    producer = KafkaProducer(bootstrap_servers, security)
    await producer.start()
    reader = KafkaTopicReader(bootstrap_servers, (DATASET_WITHDRAWALS,), security)
    try:
        await reader.start()
        await reader.read_new()
        partitions = await producer.send_to_all(FEEDBACK_RECEIVED, *encode(event, SOURCE))
        expected = {
            (model.model, shard, partition)
            for model in models
            for shard in range(model.shards)
            for partition in partitions
        }
        progress = WithdrawalProgress(feedback_id_of(SOURCE, event.event_id), expected)
        on_progress(f"sent {event.event_id}; waiting for {_shards(expected)}")
        await _await_all(progress, reader, clock, timeout, on_progress)
    finally:
        await reader.stop()
        await producer.stop()
    return progress


async def _await_all(
    progress: WithdrawalProgress,
    reader: KafkaTopicReader,
    clock: Clock,
    timeout: float,
    on_progress: Callable[[str], None],
) -> None:
    started, previous = clock.monotonic(), progress.missing
    while missing := progress.missing:
        if missing != previous:
            on_progress(f"waiting for {_shards(missing)}")
            previous = missing
        if clock.monotonic() - started > timeout:
            raise Unavailable(
                f"no answer from {_shards(missing)} within {timeout:g} s; the request is on the "
                "bus and takes effect once the feedback and dataset services run: check their "
                "logs, and GET /api/models/{model}/withdrawals of the registry"
            )
        for record in await reader.read_new():
            try:
                progress.add(decode(record.value, record.headers, ExamplesWithdrawn).event)
            except Unprocessable:
                continue
        await asyncio.sleep(POLL_SECONDS)


def _shards(places: Iterable[ShardPartition]) -> str:
    return ", ".join(sorted({f"{model}#{shard}" for model, shard, _ in places}))
