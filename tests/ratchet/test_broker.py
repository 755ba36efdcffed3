"""The embedded Kafka broker: start, restart, durability and error messages."""

import socket
from pathlib import Path

import pytest

from ratchet.kafka_admin.topics import apply_topics
from ratchet.local_stack.broker import Broker
from ratchet.local_stack.ports import free_port, require_free
from shared.clock import SystemClock
from shared.errors import BusUnavailable, Misconfigured
from shared.kafka.client import KafkaConsumer, KafkaProducer
from shared.messaging.topics import TOPICS, TRAINING_PROGRESS


@pytest.mark.kafka
async def test_a_restarted_broker_keeps_its_data(tmp_path: Path) -> None:
    broker = Broker(tmp_path, free_port(), free_port(), SystemClock())
    broker.start()
    try:
        first = await apply_topics(broker.bootstrap_servers)
        assert set(first.created) == {topic.name for topic in TOPICS}
        producer = KafkaProducer(broker.bootstrap_servers)
        await producer.start()
        await producer.send(TRAINING_PROGRESS, b"run", b"kept", [("name", b"value")])
        await producer.stop()
        broker.stop()
        broker.start()
        again = await apply_topics(broker.bootstrap_servers)
        assert again.created == ()
        consumer = KafkaConsumer(broker.bootstrap_servers, "test-restart", [TRAINING_PROGRESS])
        await consumer.start()
        async for record in consumer.records():
            assert (record.key, record.value, record.headers) == (
                b"run",
                b"kept",
                (("name", b"value"),),
            )
            await consumer.commit(record)
            consumer.stop_after_current()
        await consumer.stop()
    finally:
        broker.stop()


@pytest.mark.kafka
def test_a_failed_broker_start_reports_the_cause(tmp_path: Path) -> None:
    with socket.socket() as occupied:
        occupied.bind(("127.0.0.1", 0))
        occupied.listen()
        broker = Broker(tmp_path, occupied.getsockname()[1], free_port(), SystemClock())
        with pytest.raises(BusUnavailable, match="Address already in use"):
            broker.start()


def test_a_port_in_use_names_the_option() -> None:
    with socket.socket() as occupied:
        occupied.bind(("127.0.0.1", 0))
        occupied.listen()
        with pytest.raises(
            Misconfigured, match=r"is taken: .* choose another with --registry-port"
        ):
            require_free(occupied.getsockname()[1], "registry", "--registry-port")


async def test_an_unreachable_cluster_is_named() -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    with pytest.raises(BusUnavailable, match=nowhere):
        await apply_topics(nowhere)
