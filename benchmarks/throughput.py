"""Throughput of processes under load, measured from outside by the end offsets of their output."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aiokafka import AIOKafkaConsumer, TopicPartition

from ratchet.local_stack.broker import Broker
from ratchet.local_stack.ports import free_port
from shared.clock import SystemClock
from shared.kafka.client import READ_COMMITTED


@dataclass(frozen=True)
class Throughput:
    """Events a second of a process at full speed, and the share of one core that the broker used
    meanwhile.
    """

    rate: float
    broker_share: float


@contextmanager
def python_process(log: Path, *command: str, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a Python module with the given settings, and terminate it afterwards."""
    with log.open("ab") as out:
        environment = dict(os.environ) | settings  # noqa: TID251 (a child process inherits the environment)
        process = subprocess.Popen(
            [sys.executable, "-m", *command], env=environment, stdout=out, stderr=out
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def service_command(
    name: str, group: str, bootstrap_servers: str, folder: Path, models: Path
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the command and the settings of a streams service."""
    settings = {
        "RATCHET_BOOTSTRAP_SERVERS": bootstrap_servers,
        "RATCHET_MODELS": str(models),
        "RATCHET_OBJECT_STORE": str(folder / "objects"),
        "RATCHET_DATA": str(folder / group),
        "RATCHET_LOG_LEVEL": "warning",
        f"RATCHET_{name.upper()}_PORT": str(free_port()),
        f"RATCHET_{name.upper()}_GROUP": group,
    }
    return (f"services.{name}",), settings


async def measure_throughput(
    broker: Broker,
    topic: str,
    events: int,
    processes: list[subprocess.Popen[bytes]],
    after: int = 0,
) -> Throughput:
    """Measure `processes` that write one record to `topic` for each event, between `after` and
    `events` events. A tenth at either end is excluded, because they start, join their group and run
    out of work there.
    """
    clock = SystemClock()
    samples: list[tuple[float, int, float]] = []
    async with AIOKafkaConsumer(
        bootstrap_servers=broker.bootstrap_servers, isolation_level=READ_COMMITTED
    ) as consumer:
        await consumer._client._wait_on_metadata(topic)
        partitions = [
            TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()
        ]
        before = sum((await consumer.end_offsets(partitions)).values())
        written = 0
        while written < events:
            for process in processes:
                if process.poll() is not None:
                    raise RuntimeError(
                        f"a process ended with status {process.returncode}; see its log"
                    )
            written = sum((await consumer.end_offsets(partitions)).values()) - before
            samples.append((clock.monotonic(), written, _cpu_seconds(broker)))
            await asyncio.sleep(0.05)
    margin = (events - after) / 10
    inside = [sample for sample in samples if after + margin <= sample[1] <= events - margin]
    (start, first, cpu_before), (end, last, cpu_after) = inside[0], inside[-1]
    return Throughput((last - first) / (end - start), (cpu_after - cpu_before) / (end - start))


def _cpu_seconds(broker: Broker) -> float:
    assert broker.process is not None
    fields = Path(f"/proc/{broker.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
