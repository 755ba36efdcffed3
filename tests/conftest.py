"""Real parts, one of each for a test session: an Apache Kafka broker and the small model."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from ratchet.bases import prepare_smollm2
from ratchet.broker import Broker
from ratchet.ports import free_port
from ratchet.topics import apply_topics, await_groups
from shared.clock import SystemClock


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The bootstrap servers of a real broker that has all topics. Tests share it: each uses models, keys and groups of its own."""
    server = Broker(tmp_path_factory.mktemp("kafka"), free_port(), free_port(), SystemClock())
    server.start()
    try:
        asyncio.run(apply_topics(server.bootstrap_servers))
        asyncio.run(await_groups(server.bootstrap_servers))
        yield server.bootstrap_servers
    finally:
        server.stop()


@pytest.fixture(scope="session")
def own_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A second one, which tests may halt and wake (SIGSTOP, SIGCONT)."""
    server = Broker(tmp_path_factory.mktemp("own-kafka"), free_port(), free_port(), SystemClock())
    server.start()
    try:
        asyncio.run(apply_topics(server.bootstrap_servers))
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def bases() -> Path:
    """The folder of base models, with the small real one prepared."""
    folder = Path(".ratchet/bases")
    prepare_smollm2(folder)
    return folder
