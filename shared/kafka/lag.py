"""How far a consumer group is behind, as its member sees it that owns the partitions."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from shared.errors import BusUnavailable
from shared.kafka.end_offsets import LogEnds
from shared.observability.metrics import Metrics

LOOK_SECONDS = 5.0

Place = tuple[str, int]


class Member(Protocol):
    """A member of a group that commits."""

    async def committed(self) -> Mapping[Place, int | None]:
        """What the group has committed in the partitions that are this member's; None where
        nothing. Raises BusUnavailable.
        """


async def watch_lag(
    member: Member,
    group: str,
    topics: Sequence[str],
    ends: LogEnds,
    metrics: Metrics,
    seconds: float = LOOK_SECONDS,
) -> None:
    """Tell for ever. While the broker is away, what was last seen stands."""
    try:
        while True:
            with suppress(BusUnavailable):
                await ends.start()
                tell_lag(await ends.behind(await member.committed()), group, topics, metrics)
            await asyncio.sleep(seconds)
    finally:
        await ends.stop()


def tell_lag(
    behind: Mapping[Place, int], group: str, topics: Sequence[str], metrics: Metrics
) -> None:
    """`behind` says how many records wait in each partition; a topic of which no partition is ours
    has none that wait here.
    """
    for topic in topics:
        waiting = sum(count for (name, _), count in behind.items() if name == topic)
        metrics.set("ratchet_consumer_lag_records", waiting, group=group, topic=topic)
