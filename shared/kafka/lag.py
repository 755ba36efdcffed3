"""Consumer lag of a group, reported by the member that owns the partitions."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from shared.errors import BusUnavailable
from shared.kafka.end_offsets import EndOffsets
from shared.observability.metrics import Metrics

INTERVAL_SECONDS = 5.0

Partition = tuple[str, int]


class GroupMember(Protocol):
    """A member of a group that commits."""

    async def committed(self) -> Mapping[Partition, int | None]:
        """Return the group's committed offsets in the assigned partitions; None without a commit.

        Raises BusUnavailable.
        """


async def export_lag(
    member: GroupMember,
    group: str,
    topics: Sequence[str],
    ends: EndOffsets,
    metrics: Metrics,
    seconds: float = INTERVAL_SECONDS,
) -> None:
    """Export the consumer lag until cancelled.

    While the broker is unavailable, the last values stay.
    """
    try:
        while True:
            with suppress(BusUnavailable):
                await ends.start()
                set_lag(await ends.lag(await member.committed()), group, topics, metrics)
            await asyncio.sleep(seconds)
    finally:
        await ends.stop()


def set_lag(
    lag: Mapping[Partition, int], group: str, topics: Sequence[str], metrics: Metrics
) -> None:
    """Set the lag metric of each topic from the lag per partition; 0 for a topic without assigned
    partitions.
    """
    for topic in topics:
        waiting = sum(count for (name, _), count in lag.items() if name == topic)
        metrics.set("ratchet_consumer_lag_records", waiting, group=group, topic=topic)
