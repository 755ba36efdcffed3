"""Restart time of the dataset service with many pending examples, from starting the process until
it accepts work.

The entries are written directly to `dataset.entries`, by the service's own ledger and with its
keys, values and partitions. So the service recovers the same state as if it had processed each
event, without the time for that.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import murmur2

from ratchet.local_stack.ports import LOOPBACK, free_port
from services.dataset.ledger.ledger import Ledger
from shared.config.model_file import BasePaths, ModelFile
from shared.events import FeedbackScored, PolicyRef, Position
from shared.identity import digest_of, identity
from shared.messaging.topics import DATASET_ENTRIES, FEEDBACK_SCORED, TOPICS
from shared.storage.dataset_entries import DatasetEntry

MODELS = 200
PENDING = 10_000
WORDS = 60
"""Words of a prompt and of an answer: about 540 characters each."""

_START = datetime(2026, 1, 1, tzinfo=UTC)
_PARTITIONS = next(topic.partitions for topic in TOPICS if topic.name == FEEDBACK_SCORED)


def measure_restart(bootstrap_servers: str, models: int = MODELS, pending: int = PENDING) -> float:
    """Return the seconds from starting the process until it is ready, with `pending` examples over
    `models` models, including the start of Python and joining the group. The topics must exist, and
    `dataset.entries` must be empty.
    """
    per_model = pending // models
    with tempfile.TemporaryDirectory(prefix="ratchet-restart-") as name:
        folder = Path(name)
        files = [_model_file(f"restart{number:04}", per_model) for number in range(models)]
        (folder / "models").mkdir()
        for file in files:
            (folder / "models" / f"{file.model}.yaml").write_text(
                file.model_dump_json(exclude_defaults=True), encoding="utf-8"
            )
        asyncio.run(
            _write(
                bootstrap_servers,
                (entry for file in files for entry in _pending_entries(file, per_model)),
            )
        )
        return _ready_after(bootstrap_servers, folder)


def _model_file(model: str, per_model: int) -> ModelFile:
    """Return a model file with which no batch closes and nothing is held out."""
    base = BasePaths(training="base", serving="base.gguf")
    curation = {"batch_size": max(50, per_model + 1), "held_out_share": 0.0}
    return ModelFile.model_validate(
        {"model": model, "base": base.model_dump(), "curation": curation}
    )


def _pending_entries(file: ModelFile, count: int) -> Iterator[DatasetEntry]:
    """Yield the entries that a ledger writes for `count` thumbs up of many users."""
    ledger = Ledger(file, 0)
    partition = (murmur2(file.model.encode()) & 0x7FFFFFFF) % _PARTITIONS
    for number in range(count):
        source = Position(topic=FEEDBACK_SCORED, partition=partition, offset=number)
        entry = ledger.decide(_scored(file.model, number), source, _START).entry
        assert entry is not None
        assert entry.is_waiting
        yield entry


def _scored(model: str, number: int) -> FeedbackScored:
    return FeedbackScored(
        event_id=f"{model}-{number}",
        occurred_at=_START,
        model=model,
        input=_text("prompt", model, number),
        output=_text("answer", model, number),
        feedback_type="thumbs_up",
        user_id=f"user{number}",
        shard=0,
        reward=1.0,
        parts=(),
        policy=PolicyRef(name="default", version=1),
        model_digest=digest_of(b""),
        received=Position(topic="feedback.received", partition=0, offset=number),
    )


def _text(kind: str, model: str, number: int) -> str:
    """Return a text that shares no word with any other."""
    return " ".join(identity(kind, model, number, at)[:8] for at in range(WORDS))


async def _write(bootstrap_servers: str, entries: Iterator[DatasetEntry]) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap_servers, enable_idempotence=True, linger_ms=20
    )
    await producer.start()
    try:
        for entry in entries:
            await producer.send(
                DATASET_ENTRIES, entry.encode(), entry.key.encode(), entry.source.partition
            )
    finally:
        await producer.stop()


def _ready_after(bootstrap_servers: str, folder: Path) -> float:
    port = free_port()
    environment = os.environ | {  # noqa: TID251 (settings of the measured process)
        "RATCHET_BOOTSTRAP_SERVERS": bootstrap_servers,
        "RATCHET_MODELS": str(folder / "models"),
        "RATCHET_OBJECT_STORE": str(folder / "objects"),
        "RATCHET_DATA": str(folder / "faust"),
        "RATCHET_DATASET_PORT": str(port),
        "RATCHET_DATASET_GROUP": f"restart-{port}",
    }
    log = folder / "dataset.log"
    started = time.perf_counter()
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [sys.executable, "-m", "services.dataset"], env=environment, stderr=output
        ) as process,
    ):
        try:
            while not _is_ready(port):
                if process.poll() is not None or time.perf_counter() - started > 300:
                    raise RuntimeError(
                        f"the dataset service did not become ready\n{log.read_text()[-2000:]}"
                    )
                time.sleep(0.05)
            return time.perf_counter() - started
        finally:
            process.terminate()


def _is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://{LOOPBACK}:{port}/readyz").is_success
    except httpx.TransportError:
        return False
