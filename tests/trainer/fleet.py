"""Trainer processes on a real broker, each with its own disk, and a base that trains in seconds; a
test plays the registry.
"""

import asyncio
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from aiokafka.admin import AIOKafkaAdminClient
from transformers import LlamaConfig, LlamaForCausalLM

from services.trainer.data.training_set import Sample
from shared.errors import Unprocessable
from shared.events import (
    BatchReady,
    CheckpointSaved,
    Event,
    TrainingProgressed,
    TrainingRolledBack,
    VersionPromoted,
    VersionRegistered,
)
from shared.kafka.end_offsets import EndOffsets
from shared.messaging.codec import decode, encode
from shared.messaging.topics import (
    MODELS_VERSIONS,
    TOPICS,
    TRAINING_BATCHES,
    TRAINING_CHECKPOINTS,
    TRAINING_PROGRESS,
    TRAINING_ROLLBACKS,
)
from shared.storage.object_store import FsspecStore
from tests.support.service_process import ServiceProcess, read, send
from tests.support.tickets import NOW, tickets, write_batch

SESSION = 6
"""Session timeout in seconds, the shortest that the broker allows."""

MODEL_FILE = """model: {model}
base: {{training: tiny, serving: tiny/model.gguf}}
lanes:
  adaptive:
    rehearsal: none
    training:
      {{batch_size: 8, epochs: 10, replay: 0, rank: 16, precision: fp32, save_steps: 10,
       learning_rate: 0.001}}
"""

STEPS = 30
"""Steps of a default batch's run; every 10 steps it saves a checkpoint."""
STALLED_STEP = 10
STALL_FIRST_CHECKPOINT = "trainer.child_saving=stall:8"
"""Failpoint that stalls the first checkpoint, for less than a shutdown waits: on any machine, the
run is then in progress.
"""

OUTCOMES = (CheckpointSaved, TrainingRolledBack)
_PARTITIONS = {topic.name: topic.partitions for topic in TOPICS}


def make_base(real: Path, folder: Path) -> None:
    """Create a Llama with random weights and the real tokenizer."""
    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(real / name, folder / name)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
    )
    causal: Any = LlamaForCausalLM
    causal(config).save_pretrained(folder)


class Fleet:
    """Trainers of one model and consumer group."""

    def __init__(self, bootstrap_servers: str, base: Path, folder: Path, model: str) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.folder = folder
        self.model = model
        self.store = FsspecStore(str(folder / "objects"))
        self.workers: list[ServiceProcess] = []
        self._base = base
        self._batches = 0
        (folder / "models").mkdir(parents=True)
        (folder / "models" / f"{model}.yaml").write_text(MODEL_FILE.format(model=model))

    def launch(
        self, failpoints: str = "", work: str | None = None, **settings: str
    ) -> ServiceProcess:
        """Start a worker with an empty disk, or with the disk of an earlier one."""
        worker = ServiceProcess(
            "trainer",
            self.bootstrap_servers,
            self.folder,
            RATCHET_BASES=str(self._base.parent),
            RATCHET_WORK=str(self.folder / (work or f"work-{len(self.workers)}")),
            RATCHET_TRAINER_GROUP=self.model,
            RATCHET_SESSION_SECONDS=str(SESSION),
            RATCHET_THREADS="1",
            RATCHET_FAILPOINTS=failpoints,
            **settings,
        )
        worker.launch()
        self.workers.append(worker)
        return worker

    async def start(
        self, failpoints: str = "", work: str | None = None, **settings: str
    ) -> ServiceProcess:
        worker = self.launch(failpoints, work, **settings)
        await worker.wait_until(worker.is_ready, "ready", 240)
        return worker

    async def wait_until_members(self, count: int, seconds: float = 60) -> None:
        """Wait for a stable group of `count` members. A trainer is ready shortly before."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap_servers)
        await admin.start()
        try:
            async with asyncio.timeout(seconds):
                while (await self._state(admin)) != ("Stable", count):
                    await asyncio.sleep(0.1)
        finally:
            await admin.close()

    def close(self) -> None:
        for worker in self.workers:
            if worker.process is not None and worker.process.poll() is None:
                worker.process.send_signal(signal.SIGCONT)
                worker.kill()

    async def publish(self, topic: str, event: Event) -> None:
        await send(self.bootstrap_servers, topic, [(self.model.encode(), *encode(event, "test"))])

    async def register_base(self) -> None:
        """Publish the registry's first event: the base is the champion."""
        first = {
            "event_id": f"{self.model}-0",
            "occurred_at": NOW,
            "model": self.model,
            "version": "v0",
            "number": 0,
        }
        await self.publish(
            MODELS_VERSIONS,
            VersionRegistered.model_validate(first | {"answer": "promoted", "champion": "v0"}),
        )

    def batch(self, training: Sequence[Sample] = (), held_out: int = 8) -> BatchReady:
        """Write the next batch to the object store."""
        number, self._batches = self._batches, self._batches + 1
        return write_batch(
            self.store, self.model, number, training or tickets(0, 24), tickets(500, held_out)
        )

    async def announce(self, batch: BatchReady) -> BatchReady:
        await self.publish(TRAINING_BATCHES, batch)
        return batch

    async def outcomes(self, batch: BatchReady) -> list[CheckpointSaved | TrainingRolledBack]:
        """Return all outcome events of a batch."""
        events = [
            *await self._events(TRAINING_CHECKPOINTS),
            *await self._events(TRAINING_ROLLBACKS),
        ]
        return [
            event
            for event in events
            if isinstance(event, OUTCOMES) and event.batch_id == batch.batch_id
        ]

    async def steps(self, batch: BatchReady) -> list[TrainingProgressed]:
        """Return the training step events of a batch's run, in the order of publication."""
        return [
            event
            for event in await self._events(TRAINING_PROGRESS)
            if isinstance(event, TrainingProgressed)
            and event.batch_id == batch.batch_id
            and event.phase == "training"
            and event.step > 0
        ]

    async def wait_until_step(self, batch: BatchReady, step: int, seconds: float = 120) -> None:
        async with asyncio.timeout(seconds):
            while not any(event.step >= step for event in await self.steps(batch)):
                await asyncio.sleep(0.1)

    async def wait_for_outcome(
        self, batch: BatchReady, seconds: float = 300
    ) -> CheckpointSaved | TrainingRolledBack:
        """Play the registry until the batch is committed; return its only outcome."""
        answered = False
        async with asyncio.timeout(seconds):
            while await self._has_lag():
                for outcome in await self.outcomes(batch):
                    if isinstance(outcome, CheckpointSaved) and not answered:
                        answered = True
                        await self._promote(outcome)
                await asyncio.sleep(0.3)
        (outcome,) = await self.outcomes(batch)
        return outcome

    async def wait_until_step_logged(self, step: int, seconds: float = 120) -> ServiceProcess:
        """Wait until a worker has logged a step of a run, and return the worker. Step events are
        too rare to wait for a particular one.
        """
        async with asyncio.timeout(seconds):
            while True:
                for worker in self.workers:
                    if f" step={step} " in worker.log:
                        return worker
                await asyncio.sleep(0.1)

    async def wait_until_logged(
        self, worker: ServiceProcess, text: str, seconds: float = 120
    ) -> None:
        await worker.wait_until(lambda: text in worker.log, f"at {text!r}", seconds)

    def unfinished_files(self) -> list[Path]:
        """Return the object store's files of unfinished runs."""
        return [
            path for path in (self.folder / "objects" / "unfinished").rglob("*") if path.is_file()
        ]

    async def _state(self, admin: AIOKafkaAdminClient) -> tuple[str, int]:
        """Return the state of the group and the number of its members."""
        (response,) = await admin.describe_consumer_groups([self.model])
        (_, _, state, _, _, members, *_) = response.groups[0]
        return state, len(members)

    async def _promote(self, saved: CheckpointSaved) -> None:
        shared = {
            "model": self.model,
            "version": f"v-{saved.run_id}",
            "occurred_at": NOW,
            "adapter": saved.adapter,
            "run_id": saved.run_id,
        }
        registered = {
            "number": 1,
            "champion": f"v-{saved.run_id}",
            "answer": "promoted",
            "batch_id": saved.batch_id,
        }
        registered |= {
            "event_id": f"r-{saved.run_id}",
            "evaluation": saved.evaluation,
            "parent_version": saved.parent_version,
        }
        await self.publish(MODELS_VERSIONS, VersionRegistered.model_validate(shared | registered))
        promoted = {
            "event_id": f"p-{saved.run_id}",
            "previous": "v0",
            "actor": "trainer",
            "reason": "test",
        }
        await self.publish(MODELS_VERSIONS, VersionPromoted.model_validate(shared | promoted))

    async def _events(self, topic: str) -> list[Event]:
        events = []
        async for record in read(self.bootstrap_servers, topic, seconds=0.3):
            try:
                event = decode(record.value, record.headers, *OUTCOMES, TrainingProgressed).event
            except Unprocessable:
                continue
            if getattr(event, "model", "") == self.model:
                events.append(event)
        return events

    async def _has_lag(self) -> bool:
        """True if the group has batches that are not committed."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap_servers)
        ends = EndOffsets(self.bootstrap_servers)
        await admin.start()
        await ends.start()
        try:
            committed = await admin.list_consumer_group_offsets(self.model)
            offsets = {
                (partition.topic, partition.partition): position.offset
                for partition, position in committed.items()
            }
            numbers = range(_PARTITIONS[TRAINING_BATCHES])
            return bool(
                await ends.lag(
                    {
                        (TRAINING_BATCHES, number): offsets.get((TRAINING_BATCHES, number))
                        for number in numbers
                    }
                )
            )
        finally:
            await ends.stop()
            await admin.close()
