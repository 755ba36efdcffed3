"""A separate broker, because these tests change topic settings, and franz-go, built once."""

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ratchet.kafka_admin.topics import apply_topics, wait_for_group_coordinator
from ratchet.local_stack.broker import Broker
from ratchet.local_stack.ports import free_port
from shared.clock import SystemClock
from tests.dead_letters.kafka_access import delete_topics
from tests.producers.foreign_producers import Producers
from tests.support.programs import require_program


@pytest.fixture(scope="package")
def producer_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The bootstrap servers of a broker without topics."""
    broker = Broker(tmp_path_factory.mktemp("kafka"), free_port(), free_port(), SystemClock())
    broker.start()
    try:
        asyncio.run(wait_for_group_coordinator(broker.bootstrap_servers))
        yield broker.bootstrap_servers
    finally:
        broker.stop()


@pytest.fixture
def new_topics(producer_server: str) -> str:
    """The bootstrap servers of a broker with new, empty topics and no committed offsets."""
    asyncio.run(delete_topics(producer_server))
    asyncio.run(apply_topics(producer_server))
    return producer_server


@pytest.fixture(scope="package")
def franz_go(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program `franz_go`, built."""
    program = tmp_path_factory.mktemp("franz") / "franz"
    built = subprocess.run(
        [require_program("go"), "build", "-mod=readonly", "-o", str(program), "."],
        cwd=Path(__file__).parent / "franz_go",
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return program


@pytest.fixture
def producers(new_topics: str, franz_go: Path) -> Producers:
    """The producers of other languages, with new topics."""
    return Producers(new_topics, require_program("kcat"), franz_go)
