"""Notification of a consumer group's members about rebalances."""

import asyncio
from collections.abc import Collection
from typing import Protocol

from aiokafka import ConsumerRebalanceListener, TopicPartition


class RebalanceHandler(Protocol):
    """Reactions of a group member to rebalances."""

    async def before_revoke(self) -> None:
        """Prepare for the revocation of partitions, which may move once this returns, not before.

        Heartbeats continue meanwhile.
        """

    async def after_assign(self) -> None:
        """React to the new assignment of partitions."""


class RebalanceListener(ConsumerRebalanceListener):  # type: ignore[misc]  # the library has no types
    """Tracks whether a rebalance is in progress, and notifies the handler."""

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
