"""Notification of a group member about rebalances."""

from aiokafka import TopicPartition

from shared.kafka.rebalance import RebalanceListener
from shared.messaging.topics import FEEDBACK_RECEIVED


async def test_a_handler_is_called_around_a_rebalance() -> None:
    """The first assignment revokes nothing, so it does not call `before_revoke`."""
    calls: list[str] = []

    class Handler:
        async def before_revoke(self) -> None:
            calls.append(f"before_revoke {listener.settled.is_set()}")

        async def after_assign(self) -> None:
            calls.append(f"after_assign {listener.settled.is_set()}")

    listener, partition = RebalanceListener(Handler()), TopicPartition(FEEDBACK_RECEIVED, 0)
    assert not listener.settled.is_set()
    await listener.on_partitions_revoked(set())
    await listener.on_partitions_assigned({partition})
    await listener.on_partitions_revoked({partition})
    await listener.on_partitions_assigned(set())
    assert calls == ["after_assign True", "before_revoke False", "after_assign True"]
