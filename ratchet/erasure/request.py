"""Having a user's feedback withdrawn: say so on the bus, and wait for every shard's answer."""

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
    """What the shards have answered so far. Whoever is waited for answers for each partition that
    the event was sent to.
    """

    forgotten: Id
    expected: set[ShardPartition]
    _parts: dict[ShardPartition, dict[int, ExamplesWithdrawn]] = field(default_factory=dict)

    def add(self, event: ExamplesWithdrawn) -> None:
        if event.forgotten == self.forgotten:
            self._parts.setdefault((event.model, event.shard, event.received.partition), {})[
                event.part
            ] = event

    def event_count(self, model: str) -> int:
        """How many events answered for a model."""
        return sum(len(parts) for (name, _, _), parts in self._parts.items() if name == model)

    @property
    def missing(self) -> list[ShardPartition]:
        return sorted(
            place for place in self.expected if not self._is_complete(self._parts.get(place, {}))
        )

    def summary(self, model: str) -> dict[str, Any]:
        """What was withdrawn of a model, in numbers; `unread` are the objects that could not be
        searched.
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
    """Send an event and wait for all answers. `said` is told how far it is.

    It goes to every partition: what the user said before stands on any of them, and each is read at
    its own pace. Raises Unavailable when not all have answered within `timeout` seconds, and
    BusUnavailable.
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
        answers = WithdrawalProgress(feedback_id_of(SOURCE, event.event_id), expected)
        on_progress(f"sent {event.event_id}; waiting for {_shards(expected)}")
        await _await_all(answers, reader, clock, timeout, on_progress)
    finally:
        await reader.stop()
        await producer.stop()
    return answers


async def _await_all(
    answers: WithdrawalProgress,
    reader: KafkaTopicReader,
    clock: Clock,
    timeout: float,
    on_progress: Callable[[str], None],
) -> None:
    begun, before = clock.monotonic(), answers.missing
    while missing := answers.missing:
        if missing != before:
            on_progress(f"waiting for {_shards(missing)}")
            before = missing
        if clock.monotonic() - begun > timeout:
            raise Unavailable(
                f"no answer from {_shards(missing)} within {timeout:g} s; the request is on "
                "the bus and will be carried out once the "
                "feedback and the dataset service run: look at their logs, and ask the "
                "registry for /api/models/{model}/withdrawals"
            )
        for record in await reader.read_new():
            try:
                answers.add(decode(record.value, record.headers, ExamplesWithdrawn).event)
            except Unprocessable:
                continue
        await asyncio.sleep(POLL_SECONDS)


def _shards(places: Iterable[ShardPartition]) -> str:
    return ", ".join(sorted({f"{model}#{shard}" for model, shard, _ in places}))
