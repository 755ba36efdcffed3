"""Services as processes, and topics as lists of records, for tests on a real broker."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path

import httpx
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from ratchet.local_stack.ports import free_port
from shared.kafka.client import record_of
from shared.messaging.bus import Record

Headers = Sequence[tuple[str, bytes]]


class ServiceProcess:
    """A process `python -m services.<name>`, or of another module, with its own settings."""

    def __init__(
        self,
        name: str,
        bootstrap_servers: str,
        folder: Path,
        *,
        module: str | None = None,
        **settings: str,
    ) -> None:
        self.port = free_port()
        self.name = name
        self._module = module or f"services.{name}"
        self._settings = {
            "RATCHET_BOOTSTRAP_SERVERS": bootstrap_servers,
            "RATCHET_MODELS": str(folder / "models"),
            "RATCHET_OBJECT_STORE": str(folder / "objects"),
            "RATCHET_DATA": str(folder / "faust"),
            f"RATCHET_{name.upper()}_PORT": str(self.port),
            "RATCHET_SESSION_SECONDS": "6",
        } | settings
        self._log = folder / f"{name}-{self.port}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def launch(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self._module],
                env=os.environ | self._settings,
                stderr=log,
            )

    async def start(self) -> None:
        """Start the process and wait until it is ready."""
        self.launch()
        await self.wait_until(self.is_ready, "ready")

    async def wait_until(
        self, condition: Callable[[], bool], description: str, seconds: float = 40
    ) -> None:
        for _ in range(int(seconds / 0.1)):
            if condition():
                return
            assert self.process is not None
            assert self.process.poll() is None, self.log
            await asyncio.sleep(0.1)
        raise AssertionError(f"{self.name} was not {description} in {seconds} s\n{self.log}")

    async def wait_for_exit(self, seconds: float = 60) -> int:
        """Wait until the process exits. Return its exit status."""
        assert self.process is not None
        return await asyncio.to_thread(self.process.wait, seconds)

    @property
    def metrics(self) -> str:
        return httpx.get(f"http://127.0.0.1:{self.port}/metrics").text

    @property
    def log(self) -> str:
        return self._log.read_text()

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self, seconds: float = 10) -> int:
        """Send SIGTERM and return the exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def is_ready(self) -> bool:
        return self._answers("/readyz")

    def is_live(self) -> bool:
        return self._answers("/healthz")

    def _answers(self, path: str) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}{path}").status_code == 200
        except httpx.TransportError:
            return False


async def send(
    bootstrap_servers: str,
    topic: str,
    records: Sequence[tuple[bytes | None, bytes | None, Headers]],
    partition: int | None = None,
) -> None:
    """Send records (key, value, headers) to a topic, in order.

    They go to `partition` if given, else to the partitions of their keys.
    """
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap_servers, enable_idempotence=True)
    await producer.start()
    try:
        for delivery in [
            await producer.send(topic, value, key, partition, headers=list(headers))
            for key, value, headers in records
        ]:
            await delivery
    finally:
        await producer.stop()


async def read(
    bootstrap_servers: str, topic: str, seconds: float = 20
) -> AsyncGenerator[Record, None]:
    """Yield the records of a topic from its start, until none arrives for `seconds`."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap_servers, enable_auto_commit=False)
    await consumer.start()
    try:
        partitions = [
            TopicPartition(topic, number) for number in await _partitions(consumer, topic)
        ]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        while fetched := await consumer.getmany(timeout_ms=int(seconds * 1000)):
            for batch in fetched.values():
                for raw in batch:
                    yield record_of(raw)
    finally:
        await consumer.stop()


async def _partitions(consumer: AIOKafkaConsumer, topic: str) -> set[int]:
    await consumer._client._wait_on_metadata(topic)
    return set(consumer.partitions_for_topic(topic) or ())
