"""The shell: a Faust stream of scored events, and the table of entries that it recovers from."""

from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import Any

import faust

from services.dataset.handlers import Dataset
from services.dataset.ledger.recovery import ShardKey, ShardState, read_state
from shared.errors import Unavailable
from shared.kafka.streams import OffsetCommitter, record_of, source_topic
from shared.messaging.topics import DATASET_ENTRIES, FEEDBACK_SCORED
from shared.observability.health import Health

OVERDUE_CHECK_SECONDS = 5.0


class FaustTable:
    """The entries in a Faust table, whose changelog topic is `dataset.entries`.

    Written with the delivery in hand, which Faust's own `table[key] = value` throws away: it would
    commit past an entry that never reached the changelog. What is held is not always what was
    written: after a rebalance either of them is read.
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

    def put(self, partition: int, key: str, value: bytes) -> Awaitable[Any]:
        self.table.data[key.encode()] = value
        delivery: Awaitable[Any] = self.table.send_changelog(
            partition, key.encode(), value, "raw", "raw"
        )
        return delivery

    def hold(self, key: str, value: bytes) -> None:
        self.table.data[key.encode()] = value

    def delete(self, partition: int, key: str) -> Awaitable[Any]:
        self.table.data.pop(key.encode(), None)
        delivery: Awaitable[Any] = self.table.send_changelog(
            partition, key.encode(), None, "raw", "raw"
        )
        return delivery

    def owned_shards(self) -> dict[ShardKey, ShardState]:
        """What the table says of the partitions that this worker owns; the rest is dropped from
        memory.
        """
        partitions = {
            tp.partition for tp in self._app.consumer.assignment() if tp.topic == FEEDBACK_SCORED
        }
        state, others = read_state(self.table.data.items(), partitions.__contains__)
        for key in others:
            del self.table.data[key]
        return state


def attach(
    app: faust.App, table: FaustTable, dataset: Dataset, commits: OffsetCommitter, health: Health
) -> None:
    """Let `app` feed the records of `feedback.scored` to `dataset`, after it has got the entries
    back.
    """

    async def on_recovered() -> None:
        try:
            await dataset.recover(table.owned_shards)
        except Exception as error:
            # Faust would log it and start the stream on a state that is not there.
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
                # Left to Faust, an exception would only restart the stream behind the record that
                # caused it.
                await app.crash(error)
                return

    async def look_at_the_clock() -> None:
        try:
            await dataset.close_overdue_batches()
        except Unavailable:
            # Not needed by anyone in particular: it is looked at again soon.
            return
        except Exception as error:
            await app.crash(error)

    app.timer(OVERDUE_CHECK_SECONDS, name="look_at_the_clock")(look_at_the_clock)
    table.table.on_recover(on_recovered)
    app.agent(source_topic(app, FEEDBACK_SCORED), concurrency=1, name="curate_feedback")(
        curate_feedback
    )
