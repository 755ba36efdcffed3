"""Time from a batch's announcement to its outcome, by phase: a warm trainer process on a real
Apache Kafka. Run it with `python -m benchmarks.trainer.batch_latency`.
"""

import asyncio
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from benchmarks.throughput import python_process
from ratchet.demo.tickets import make_ticket
from ratchet.kafka_admin.topics import apply_topics, wait_for_group_coordinator
from ratchet.local_stack.broker import Broker
from ratchet.local_stack.ports import LOOPBACK, free_port
from shared.clock import SystemClock
from shared.config.models import load_models
from shared.errors import Unprocessable
from shared.events import (
    BatchCounts,
    BatchReady,
    CheckpointSaved,
    TrainingProgressed,
    TrainingRolledBack,
    VersionRegistered,
)
from shared.identity import identity
from shared.kafka.client import READ_COMMITTED
from shared.messaging.codec import decode, encode
from shared.messaging.topics import (
    MODELS_VERSIONS,
    TRAINING_BATCHES,
    TRAINING_CHECKPOINTS,
    TRAINING_PROGRESS,
    TRAINING_ROLLBACKS,
)
from shared.storage.object_store import FsspecStore, canonical_json
from shared.storage.snapshots import BatchManifest, DataFile, Example, ExampleKind

FOLDER = Path(".ratchet/bench/trainer")
MODEL = "support"
TRAINING, HELD_OUT = 50, 6
TIMEOUT_SECONDS = 900.0


async def measure(threads: int) -> dict[str, float]:
    """Return the seconds from the announcement to the outcome under `total`, and those of each
    phase under its name.
    """
    _clear()
    broker, port = Broker(FOLDER / "kafka", free_port(), free_port(), SystemClock()), free_port()
    await asyncio.to_thread(broker.start)
    try:
        await apply_topics(broker.bootstrap_servers)
        await wait_for_group_coordinator(broker.bootstrap_servers)
        settings = {
            "RATCHET_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
            "RATCHET_MODELS": "models",
            "RATCHET_BASES": ".ratchet/bases",
            "RATCHET_OBJECT_STORE": str(FOLDER / "objects"),
            "RATCHET_WORK": str(FOLDER / "work"),
            "RATCHET_THREADS": str(threads),
            "RATCHET_TRAINER_PORT": str(port),
        }
        with python_process(FOLDER / "trainer.log", "services.trainer", **settings) as process:
            started = time.perf_counter()
            while not await _ready(port):
                if process.poll() is not None or time.perf_counter() - started > TIMEOUT_SECONDS:
                    raise RuntimeError(
                        f"the trainer did not become ready: see {FOLDER / 'trainer.log'}"
                    )
                await asyncio.sleep(0.2)
            return await _announce_and_wait(broker.bootstrap_servers)
    finally:
        await asyncio.to_thread(broker.stop)


def _clear() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)


async def _announce_and_wait(bootstrap_servers: str) -> dict[str, float]:
    topics = (TRAINING_PROGRESS, TRAINING_CHECKPOINTS, TRAINING_ROLLBACKS)
    entered: list[tuple[str, float]] = []
    async with (
        AIOKafkaConsumer(
            *topics,
            bootstrap_servers=bootstrap_servers,
            auto_offset_reset="earliest",
            isolation_level=READ_COMMITTED,
        ) as consumer,
        AIOKafkaProducer(bootstrap_servers=bootstrap_servers) as producer,
        asyncio.timeout(TIMEOUT_SECONDS),
    ):
        value, headers = encode(_base_registered(), "ratchet/bench")
        await producer.send_and_wait(MODELS_VERSIONS, value, MODEL.encode(), headers=list(headers))
        value, headers = encode(_batch(), "ratchet/bench")
        started = time.perf_counter()
        await producer.send_and_wait(TRAINING_BATCHES, value, MODEL.encode(), headers=list(headers))
        async for record in consumer:
            now = time.perf_counter() - started
            try:
                event = decode(
                    record.value,
                    record.headers,
                    TrainingProgressed,
                    CheckpointSaved,
                    TrainingRolledBack,
                ).event
            except Unprocessable:
                continue
            if isinstance(event, TrainingProgressed):
                if not entered or entered[-1][0] != event.phase:
                    entered.append((event.phase, now))
            elif isinstance(event, TrainingRolledBack) and event.outcome == "failed":
                raise RuntimeError(f"the run failed: {event.reason}")
            else:
                return _phases(entered, now)
    raise AssertionError("a consumer never stops on its own")


def _phases(entered: Sequence[tuple[str, float]], total: float) -> dict[str, float]:
    """Return the seconds per phase. A phase ends when the next begins; repeated phases add up."""
    seconds: dict[str, float] = {}
    for (phase, started), ended in zip(
        entered, [*(entered_at for _, entered_at in entered[1:]), total], strict=True
    ):
        seconds[phase] = seconds.get(phase, 0.0) + ended - started
    return seconds | {"total": total}


async def _ready(port: int) -> bool:
    try:
        async with httpx.AsyncClient() as client:
            return (await client.get(f"http://{LOOPBACK}:{port}/readyz")).is_success
    except httpx.TransportError:
        return False


def _base_registered() -> VersionRegistered:
    """Build the registry's first event: the bare base is the champion."""
    return VersionRegistered(
        event_id=identity("registered", MODEL, 0),
        occurred_at=SystemClock().now(),
        model=MODEL,
        version="v0",
        number=0,
        answer="promoted",
        champion="v0",
    )


def _batch() -> BatchReady:
    """Write the demo model's first batch to the object store, as the dataset service does."""
    store, model = FsspecStore(str(FOLDER / "objects")), load_models(Path("models")).get(MODEL)
    batch_id, files = identity("bench-trainer", 0), []
    kinds: dict[ExampleKind, int] = {"training": TRAINING, "held_out": HELD_OUT}
    for kind, count in kinds.items():
        lines = [_example(kind, number).model_dump_json() for number in range(count)]
        artefact = store.put(f"batches/{MODEL}/0/{kind}.jsonl", "\n".join(lines).encode())
        files.append(DataFile(kind=kind, artefact=artefact, examples=count))
    counts = BatchCounts(training=TRAINING, preference=0, negative=0, held_out=HELD_OUT)
    manifest = BatchManifest(
        batch_id=batch_id,
        model=MODEL,
        model_digest=model.digest,
        shard=0,
        number=0,
        lane="adaptive",
        files=tuple(files),
        counts=counts,
        dropped={},
        offsets=(),
        feedback_ids=(),
        mean_reward=1,
        previous=None,
    )
    return BatchReady(
        event_id=identity("BatchReady", batch_id),
        occurred_at=SystemClock().now(),
        model=MODEL,
        model_digest=model.digest,
        batch_id=batch_id,
        shard=0,
        number=0,
        lane="adaptive",
        manifest=store.put(
            f"batches/{MODEL}/0/manifest.json", canonical_json(manifest.model_dump(mode="json"))
        ),
        counts=counts,
        offsets=(),
    )


def _example(kind: str, number: int) -> Example:
    example_ticket = make_ticket(f"bench-outcome-{kind}", number)
    return Example(
        feedback_id=f"{kind}-{number}",
        messages=example_ticket.messages,
        answer=example_ticket.answer,
        feedback_type="correction",
        reward=1,
        quality=1,
    )


if __name__ == "__main__":
    for phase, seconds in asyncio.run(measure(threads=0)).items():
        print(f"{phase:<12} {seconds:6.1f} s")
