"""Faust stream of scored events, and the Faust table of entries that the service recovers from."""

from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import Any

import faust

from services.dataset.handlers import Dataset
from services.dataset.ledger.recovery import ShardKey, ShardState, read_state
from services.dataset.ledger.results import TableWrite
from shared.errors import Unavailable
from shared.kafka.streams import OffsetCommitter, record_of, source_topic
from shared.messaging.topics import DATASET_ENTRIES, FEEDBACK_SCORED
from shared.observability.health import Health
from shared.storage.dataset_entries import ClosedBatch

OVERDUE_CHECK_SECONDS = 5.0

REPORT_SECONDS = 5.0
"""Shortest time between two reports of a shard's waiting examples."""


class FaustTable:
    """The entries in a Faust table whose changelog topic is `dataset.entries`.

    Writes return their delivery. Faust's own `table[key] = value` discards it and would commit past
    an entry that never reached the changelog. The value in memory may differ from the one in the
    changelog (`cache`): after a rebalance either of them is read.
    """

    def __init__(self, app: faust.App) -> None:
        raw: Any = {
            "key_type": bytes,
            "value_type": bytes,
            "key_serializer": "raw",
            "value_serializer": "raw",
        }
        topic = app.topic(
            DATASET_ENTRIES,
            **raw,
            acks=False,
            internal=True,
            compacting=True,
            maxsize=131_072,
            allow_empty=True,
        )
        self._app = app
        self.table: Any = app.Table(
            "entries", key_type=bytes, value_type=bytes, changelog_topic=topic
        )

    def put(self, write: TableWrite) -> Awaitable[Any]:
        return self._put(write.partition, write.key, write.value)

    def put_batch(self, batch: ClosedBatch) -> Awaitable[Any]:
        return self._put(batch.partition, batch.key, batch.encode())

    def _put(self, partition: int, key: str, value: bytes) -> Awaitable[Any]:
        encoded_key = key.encode()
        self.table.data[encoded_key] = value
        delivery: Awaitable[Any] = self.table.send_changelog(
            partition, encoded_key, value, "raw", "raw"
        )
        return delivery

    def cache(self, key: str, value: bytes) -> None:
        self.table.data[key.encode()] = value

    def delete(self, partition: int, key: str) -> Awaitable[Any]:
        self.table.data.pop(key.encode(), None)
        delivery: Awaitable[Any] = self.table.send_changelog(
            partition, key.encode(), None, "raw", "raw"
        )
        return delivery

    def owned_shards(self) -> dict[ShardKey, ShardState]:
        """Return the entries of the partitions that this worker owns, and drop all others from
        memory.
        """
        partitions = {
            tp.partition for tp in self._app.consumer.assignment() if tp.topic == FEEDBACK_SCORED
        }
        state, not_owned = read_state(self.table.data.items(), partitions.__contains__)
        for key in not_owned:
            del self.table.data[key]
        return state


def attach(
    app: faust.App, table: FaustTable, dataset: Dataset, commits: OffsetCommitter, health: Health
) -> None:
    """Make `app` pass the records of `feedback.scored` to `dataset` after the table's recovery."""

    async def on_recovered() -> None:
        try:
            await dataset.recover(table.owned_shards)
        except Exception as error:
            # Faust would only log it, and start the stream without the recovered state.
            await app.crash(error)
            return
        health.mark_ready()

    async def curate_feedback(stream: Any) -> None:
        async for event in stream.events():
            try:
                logged_at = datetime.fromtimestamp(event.message.timestamp, UTC)
                await commits.commit_after(
                    event, *await dataset.handle(record_of(event), logged_at)
                )
            except Exception as error:
                # Faust would only restart the stream after the record that caused the exception.
                await app.crash(error)
                return

    async def close_overdue_batches() -> None:
        try:
            await dataset.close_overdue_batches()
        except Unavailable:
            # The next check repeats it.
            return
        except Exception as error:
            await app.crash(error)

    async def report_waiting() -> None:
        try:
            await dataset.report_waiting()
        except Unavailable:
            # The next report repeats it.
            return
        except Exception as error:
            await app.crash(error)

    app.timer(REPORT_SECONDS, name="report_waiting")(report_waiting)
    app.timer(OVERDUE_CHECK_SECONDS, name="close_overdue_batches")(close_overdue_batches)
    table.table.on_recover(on_recovered)
    app.agent(source_topic(app, FEEDBACK_SCORED), concurrency=1, name="curate_feedback")(
        curate_feedback
    )
