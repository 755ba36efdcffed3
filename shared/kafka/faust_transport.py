"""Faust's transport, reading committed records only.

Faust 0.15 has a setting for this level only together with `exactly_once`, which is not used.
"""

from typing import Any

from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport

from shared.kafka.client import READ_COMMITTED


class CommittedConsumerThread(AIOKafkaConsumerThread):
    """A thread whose client reads no record of an aborted or open transaction."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        client = super()._create_worker_consumer(transport)
        client._isolation_level = READ_COMMITTED
        return client


class CommittedConsumer(Consumer):
    """A consumer on such a thread."""

    def _new_consumer_thread(self) -> CommittedConsumerThread:
        return CommittedConsumerThread(self, loop=self.loop, beacon=self.beacon)


class CommittedTransport(Transport):
    """The transport of such a consumer."""

    Consumer = CommittedConsumer
