"""Registry and embedded server as processes on a real Apache Kafka, with the real small model:
steady requests while versions switch, and the time until an answer comes from the new version.

The versions' adapters are random and small; nothing is trained.
"""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_urlsafe
from typing import Any

import httpx
import numpy as np
from aiokafka import AIOKafkaProducer
from safetensors.numpy import save

from benchmarks.throughput import python_process
from ratchet.kafka_admin.topics import apply_topics, wait_for_group_coordinator
from ratchet.local_stack.broker import Broker
from ratchet.local_stack.ports import LOOPBACK, free_port
from shared.clock import SystemClock
from shared.config.training import TrainingConfig
from shared.events import Artefact, CheckpointSaved, RunMetrics, Verdict
from shared.identity import digest_of, identity
from shared.messaging.codec import encode
from shared.messaging.topics import TRAINING_CHECKPOINTS
from shared.storage.adapters import CONFIG, WEIGHTS, adapter_folder, write_adapter
from shared.storage.object_store import FsspecStore

FOLDER = Path(".ratchet/bench/registry")
MODEL = "support"
TIMEOUT_SECONDS = 120.0
CLOCK = SystemClock()
TOKEN = token_urlsafe()
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}

_LAYERS, _HIDDEN, _QUERIES, _RANK = 30, 576, 576, 4
"""Dimensions of SmolLM2-135M."""


@dataclass
class RequestLog:
    """Results of steady requests: latencies of answered ones, errors of failed ones."""

    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


class VersionSwitching:
    """HTTP client of a registry and its deploy target, for operators and applications."""

    def __init__(
        self, bootstrap_servers: str, registry: httpx.AsyncClient, serving: httpx.AsyncClient
    ) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._registry = registry
        self._serving = serving
        self._runs = 0

    async def is_ready(self) -> bool:
        return (await self._registry.get("/readyz")).is_success

    async def champion(self) -> str:
        answer = await self._registry.get(f"/api/models/{MODEL}")
        return str(answer.raise_for_status().json()["champion"])

    async def answering_version(self) -> str:
        """Return the version that the current answer names."""
        request = {
            "model": MODEL,
            "messages": [{"role": "user", "content": "Hi"}],
            "max_tokens": 1,
            "temperature": 0,
        }
        answer = await self._serving.post("/v1/chat/completions", json=request)
        return str(answer.json()["model"]).partition(":")[2] if answer.is_success else ""

    async def wait_until_answering(self, version: str) -> None:
        await _until(lambda: self._answers_as(version), 0.005)

    async def _answers_as(self, version: str) -> bool:
        return await self.answering_version() == version

    async def promote_new(self) -> str:
        """Publish a promotable checkpoint; return its version as soon as it answers."""
        self._runs += 1
        before = await self.champion()
        event = _checkpoint(f"bench-{self._runs}", before)
        value, headers = encode(event, "ratchet/bench")
        async with AIOKafkaProducer(bootstrap_servers=self._bootstrap_servers) as producer:
            await producer.send_and_wait(
                TRAINING_CHECKPOINTS, value, MODEL.encode(), headers=list(headers)
            )

        async def has_moved() -> bool:
            return await self.champion() != before

        await _until(has_moved, 0.1)
        version = await self.champion()
        await self.wait_until_answering(version)
        return version

    async def roll_back(self) -> float:
        """Return the seconds from the rollback request to the previous version's first answer."""
        previous = (await self._registry.get(f"/api/models/{MODEL}")).json()["previous"]
        began = CLOCK.monotonic()
        rollback = asyncio.create_task(
            self._registry.post(f"/api/models/{MODEL}/rollback", json={"reason": "the benchmark"})
        )
        await self.wait_until_answering(previous)
        seconds = CLOCK.monotonic() - began
        answer = (await rollback).raise_for_status().json()
        assert (answer["to"], answer["deployed"]) == (previous, True)
        return seconds

    @asynccontextmanager
    async def steady_requests(self, per_second: float) -> AsyncIterator[RequestLog]:
        """Send requests at a steady rate while the body runs, each on time regardless of the
        earlier ones.
        """
        log, in_flight = RequestLog(), set[asyncio.Task[None]]()

        async def send() -> None:
            request = {
                "model": MODEL,
                "messages": [{"role": "user", "content": "Where is my parcel?"}],
                "max_tokens": 4,
            }
            began = CLOCK.monotonic()
            try:
                answer = await self._serving.post("/v1/chat/completions", json=request)
                text = (
                    answer.json()["choices"][0]["message"]["content"]
                    if answer.is_success
                    else answer.text
                )
            except (httpx.HTTPError, ValueError, LookupError) as error:
                log.failures.append(repr(error))
                return
            if answer.is_success and isinstance(text, str):
                log.seconds.append(CLOCK.monotonic() - began)
            else:
                log.failures.append(f"{answer.status_code}: {text}")

        async def send_steadily() -> None:
            began, number = CLOCK.monotonic(), 0
            while True:
                task = asyncio.create_task(send())
                in_flight.add(task)
                task.add_done_callback(in_flight.discard)
                number += 1
                await asyncio.sleep(max(0.0, began + number / per_second - CLOCK.monotonic()))

        sending = asyncio.create_task(send_steadily())
        try:
            yield log
        finally:
            sending.cancel()
            await asyncio.gather(*in_flight)


@asynccontextmanager
async def start_stack() -> AsyncIterator[VersionSwitching]:
    """Start everything from scratch, with the base as champion."""
    await asyncio.to_thread(_clear)
    registry_port, serving_port = free_port(), free_port()
    broker = Broker(FOLDER / "kafka", free_port(), free_port(), CLOCK)
    async with AsyncExitStack() as stack:
        await asyncio.to_thread(broker.start)
        stack.push_async_callback(asyncio.to_thread, broker.stop)
        await apply_topics(broker.bootstrap_servers)
        await wait_for_group_coordinator(broker.bootstrap_servers)
        settings = {
            "RATCHET_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
            "RATCHET_MODELS": "models",
            "RATCHET_BASES": ".ratchet/bases",
            "RATCHET_OBJECT_STORE": str(FOLDER / "objects"),
            "RATCHET_DATABASE": f"sqlite:///{FOLDER}/registry.db",
            "RATCHET_MERGED": str(FOLDER / "merged"),
            "RATCHET_SERVING": f"http://{LOOPBACK}:{serving_port}",
            "RATCHET_SERVING_PORT": str(serving_port),
            "RATCHET_SERVING_DATA": str(FOLDER / "serving"),
            "RATCHET_REGISTRY_PORT": str(registry_port),
            "RATCHET_OPERATE_TOKENS": TOKEN,
        }
        stack.enter_context(python_process(FOLDER / "serving.log", "ratchet.serving", **settings))
        stack.enter_context(
            python_process(FOLDER / "registry.log", "services.registry", **settings)
        )
        limits = httpx.Limits(max_connections=None)
        clients = [
            await stack.enter_async_context(
                httpx.AsyncClient(
                    base_url=f"http://{LOOPBACK}:{port}",
                    timeout=60,
                    limits=limits,
                    headers=AUTHORIZED,
                )
            )
            for port in (registry_port, serving_port)
        ]
        bench = VersionSwitching(broker.bootstrap_servers, *clients)
        await _until(bench.is_ready, 0.2)
        await bench.wait_until_answering(await bench.champion())
        yield bench


def _clear() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)


async def _until(condition: Callable[[], Awaitable[bool]], pause: float) -> None:
    """Poll the condition; a service that does not answer yet counts as false."""
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while True:
                with suppress(httpx.TransportError):
                    if await condition():
                        return
                await asyncio.sleep(pause)
    except TimeoutError:
        raise RuntimeError(
            f"no result within {TIMEOUT_SECONDS:g} s; see the logs in {FOLDER}"
        ) from None


def _checkpoint(run_id: str, baseline: str) -> CheckpointSaved:
    metrics = RunMetrics(
        training_loss=0.5,
        steps=1,
        epochs=1,
        examples_new=50,
        examples_replayed=0,
        tokens=1,
        train_seconds=1,
        evaluate_seconds=1,
    )
    return CheckpointSaved(
        event_id=identity("CheckpointSaved", run_id, 1),
        occurred_at=CLOCK.now(),
        model=MODEL,
        model_digest=digest_of(b""),
        run_id=run_id,
        batch_id=f"batch of {run_id}",
        lane="adaptive",
        parent_version=baseline,
        evaluation=1,
        adapter=_adapter(run_id),
        base_digest=digest_of(b""),
        configuration=TrainingConfig(),
        metrics=metrics,
        verdict=Verdict(
            decision="promote",
            baseline_version=baseline,
            confidence=0.95,
            reasons=("made for this benchmark",),
            comparisons=(),
        ),
        probes=(),
    )


def _adapter(run_id: str) -> Artefact:
    """Store an adapter with small random changes to every layer's q projection: a different version
    that still generates text.
    """
    random: Any = np.random.default_rng(int(identity(run_id)[:8], 16))
    weights = {}
    for layer in range(_LAYERS):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        weights[f"{name}.lora_A.weight"] = random.normal(0, 0.02, (_RANK, _HIDDEN)).astype(
            np.float32
        )
        weights[f"{name}.lora_B.weight"] = random.normal(0, 0.02, (_QUERIES, _RANK)).astype(
            np.float32
        )
    config = {
        "peft_type": "LORA",
        "r": _RANK,
        "lora_alpha": 2 * _RANK,
        "bias": "none",
        "target_modules": ["q_proj"],
    }
    files = {CONFIG: json.dumps(config).encode(), WEIGHTS: save(weights)}
    return write_adapter(
        FsspecStore(str(FOLDER / "objects")), adapter_folder(MODEL, run_id), files, digest_of(b"")
    )
