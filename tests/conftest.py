"""Fixtures of a test session, or of each of its workers: an Apache Kafka broker and the small
model.
"""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ratchet.kafka_admin.topics import apply_topics, wait_for_group_coordinator
from ratchet.local_stack.bases import prepare_smollm2
from ratchet.local_stack.broker import Broker
from ratchet.local_stack.ports import free_port
from shared.clock import SystemClock

# If every worker used all cores, they would compete, and training would take many times as long.
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run files with the real model first, so that no worker ends with the longest one."""
    long = {item.path for item in items if "model" in item.keywords}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The bootstrap servers of a real broker with all topics.

    Tests share it, so each uses its own models, keys and groups.
    """
    server = Broker(tmp_path_factory.mktemp("kafka"), free_port(), free_port(), SystemClock())
    server.start()
    try:
        asyncio.run(apply_topics(server.bootstrap_servers))
        asyncio.run(wait_for_group_coordinator(server.bootstrap_servers))
        yield server.bootstrap_servers
    finally:
        server.stop()


@pytest.fixture(scope="session")
def own_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A second broker, which tests may pause and resume (SIGSTOP, SIGCONT)."""
    server = Broker(tmp_path_factory.mktemp("own-kafka"), free_port(), free_port(), SystemClock())
    server.start()
    try:
        asyncio.run(apply_topics(server.bootstrap_servers))
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def bases() -> Path:
    """The folder of base models, with the small real model."""
    folder = Path(".ratchet/bases")
    prepare_smollm2(folder)
    return folder
