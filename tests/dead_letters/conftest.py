"""A separate broker, because these tests count all records of a topic and change topic settings."""

import asyncio
from collections.abc import Iterator

import pytest

from ratchet.kafka_admin.topics import apply_topics, wait_for_group_coordinator
from ratchet.local_stack.broker import Broker
from ratchet.local_stack.ports import free_port
from shared.clock import SystemClock
from tests.dead_letters.kafka_access import delete_topics


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The bootstrap servers of a broker without topics."""
    broker = Broker(tmp_path_factory.mktemp("kafka"), free_port(), free_port(), SystemClock())
    broker.start()
    try:
        asyncio.run(wait_for_group_coordinator(broker.bootstrap_servers))
        yield broker.bootstrap_servers
    finally:
        broker.stop()


@pytest.fixture
def broker_apart(server: str) -> str:
    """The bootstrap servers of a broker with new, empty topics and no committed offsets."""
    asyncio.run(delete_topics(server))
    asyncio.run(apply_topics(server))
    return server
