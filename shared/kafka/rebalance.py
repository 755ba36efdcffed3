"""Rebalances of a consumer group, as its members are told of them."""

import asyncio
from collections.abc import Collection
from typing import Protocol

from aiokafka import ConsumerRebalanceListener, TopicPartition


class RebalanceHandler(Protocol):
    """What a member does about them."""

    async def before_revoke(self) -> None:
        """Partitions may go to other members as soon as this returns, and not before. Heartbeats go
        on meanwhile.
        """

    async def after_assign(self) -> None:
        """It is known which partitions are this member's now."""


class RebalanceListener(ConsumerRebalanceListener):  # type: ignore[misc]  # the library has no types
    """Knows whether a rebalance is under way, and passes it on."""

    def __init__(self, rebalances: RebalanceHandler | None) -> None:
        self._rebalances = rebalances
        self.settled = asyncio.Event()

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        self.settled.clear()
        if revoked and self._rebalances is not None:
            await self._rebalances.before_revoke()

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self.settled.set()
        if self._rebalances is not None:
            await self._rebalances.after_assign()
