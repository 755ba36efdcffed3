"""The service as a process, on a real broker with the real model; the test plays the registry."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

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
from shared.identity import identity
from shared.messaging.codec import decode, encode
from shared.messaging.topics import (
    MODELS_VERSIONS,
    TRAINING_BATCHES,
    TRAINING_CHECKPOINTS,
    TRAINING_PROGRESS,
    TRAINING_ROLLBACKS,
)
from shared.storage.adapters import read_adapter
from shared.storage.object_store import FsspecStore
from tests.support.exported_metrics import check_exported, sample
from tests.support.service_process import ServiceProcess, read, send
from tests.support.tickets import NOW, ticket, tickets, write_batch

pytestmark = [pytest.mark.kafka, pytest.mark.model]

MODEL = "trainer-service"
GOLDEN = tickets(900, 12)

MODEL_FILE = f"""model: {MODEL}
base: {{training: smollm2-135m-instruct, serving: smollm2-135m-instruct/model.gguf}}
lanes:
  adaptive:
    rehearsal: none
    training: {{batch_size: 8, epochs: 2, replay: 2, learning_rate: 0.003}}
gate:
  {{golden: golden.jsonl, regression_prompts: regression_prompts.jsonl,
   regression_set: regression_set.jsonl, regression_margin: 3, probes: 2}}
"""
REGRESSION_PROMPT = {
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "must_not_contain": ["pwned"],
}
REGRESSION_SET = {"messages": [{"role": "user", "content": "What is the capital of France?"}]}


def write_models(folder: Path) -> None:
    models = folder / "models"
    models.mkdir()
    (models / f"{MODEL}.yaml").write_text(MODEL_FILE)
    (models / "golden.jsonl").write_text(
        "".join(sample.model_dump_json(exclude={"weight"}) + "\n" for sample in GOLDEN)
    )
    (models / "regression_prompts.jsonl").write_text(json.dumps(REGRESSION_PROMPT))
    (models / "regression_set.jsonl").write_text(json.dumps(REGRESSION_SET))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trainer")
    write_models(folder)
    return folder


@pytest.fixture(scope="module")
def trainer(broker: str, bases: Path, folder: Path) -> Iterator[ServiceProcess]:
    service = ServiceProcess(
        "trainer",
        broker,
        folder,
        RATCHET_BASES=str(bases),
        RATCHET_WORK=str(folder / "work"),
        RATCHET_TRAINER_GROUP=MODEL,
    )
    try:
        yield service
    finally:
        if service.process is not None and service.process.poll() is None:
            service.kill()


async def publish_event(broker: str, topic: str, event: Event) -> None:
    value, headers = encode(event, "test")
    await send(broker, topic, [(MODEL.encode(), value, headers)])


async def events(broker: str, topic: str, kind: type[Event]) -> AsyncIterator[Event]:
    async for record in read(broker, topic, seconds=1):
        try:
            event = decode(record.value, record.headers, kind).event
        except Unprocessable:
            continue
        if getattr(event, "model", "") == MODEL:
            yield event


async def wait_for_event(
    broker: str,
    topic: str,
    kind: type[Event],
    condition: Callable[[Event], bool],
    seconds: float = 240,
) -> Event:
    async with asyncio.timeout(seconds):
        while True:
            async for event in events(broker, topic, kind):
                if condition(event):
                    return event


def registered(
    version: str, number: int, answer: str, champion: str, checkpoint: CheckpointSaved | None = None
) -> VersionRegistered:
    return VersionRegistered.model_validate(
        {
            "event_id": identity(
                "registered", MODEL, number, checkpoint.evaluation if checkpoint else 0
            ),
            "occurred_at": NOW,
            "model": MODEL,
            "version": version,
            "number": number,
            "answer": answer,
            "champion": champion,
        }
        | (
            {
                "run_id": checkpoint.run_id,
                "batch_id": checkpoint.batch_id,
                "evaluation": checkpoint.evaluation,
                "parent_version": checkpoint.parent_version,
                "adapter": checkpoint.adapter,
            }
            if checkpoint
            else {}
        )
    )


def promoted(version: str, checkpoint: CheckpointSaved | None, event_id: str) -> VersionPromoted:
    return VersionPromoted(
        event_id=event_id,
        occurred_at=NOW,
        model=MODEL,
        version=version,
        previous="v0",
        adapter=checkpoint.adapter if checkpoint else None,
        run_id=checkpoint.run_id if checkpoint else None,
        actor="trainer",
        reason="test",
    )


async def checkpoint_of(broker: str, batch: BatchReady, evaluation: int) -> CheckpointSaved:
    def matches(event: Event) -> bool:
        return isinstance(event, CheckpointSaved) and (event.batch_id, event.evaluation) == (
            batch.batch_id,
            evaluation,
        )

    event = await wait_for_event(broker, TRAINING_CHECKPOINTS, CheckpointSaved, matches)
    assert isinstance(event, CheckpointSaved)
    return event


async def rollback_of(broker: str, batch: BatchReady) -> TrainingRolledBack:
    def matches(event: Event) -> bool:
        return isinstance(event, TrainingRolledBack) and event.batch_id == batch.batch_id

    event = await wait_for_event(broker, TRAINING_ROLLBACKS, TrainingRolledBack, matches)
    assert isinstance(event, TrainingRolledBack)
    return event


async def test_batches_become_checkpoints_or_rollbacks(
    broker: str, bases: Path, folder: Path, trainer: ServiceProcess
) -> None:
    """A good batch gives a checkpoint, which is evaluated again when the registry asks. Killed
    during the next run, the trainer finishes it. An altered batch fails; a poisoned one is
    rejected. SIGTERM ends trainer and training process.
    """
    store = FsspecStore(str(folder / "objects"))
    await publish_event(broker, MODELS_VERSIONS, registered("v0", 0, "promoted", "v0"))
    await trainer.start()

    good = write_batch(store, MODEL, 0, tickets(0, 24), tickets(500, 6))
    await publish_event(broker, TRAINING_BATCHES, good)
    checkpoint = await checkpoint_of(broker, good, 1)
    assert checkpoint.parent_version == checkpoint.verdict.baseline_version == "v0"
    assert {
        comparison.name: comparison.examples for comparison in checkpoint.verdict.comparisons
    } == {
        "held_out": 6,
        "golden": 12,
        "retention": 1,
        "canaries": 1,
    }
    assert [probe.messages for probe in checkpoint.probes] == [
        GOLDEN[0].messages,
        GOLDEN[1].messages,
    ]
    adapter = read_adapter(store, checkpoint.adapter)
    assert adapter.base_digest == checkpoint.base_digest
    assert {"adapter_config.json", "adapter_model.safetensors"} <= set(adapter.files)

    # The champion changed meanwhile, to another version of the base: the same candidate is
    # evaluated again, without training.
    await publish_event(broker, MODELS_VERSIONS, promoted("v0b", None, "moved"))
    await publish_event(
        broker, MODELS_VERSIONS, registered("v1", 1, "reevaluate", "v0b", checkpoint)
    )
    again = await checkpoint_of(broker, good, 2)
    assert again.verdict.baseline_version == "v0b"
    assert (again.adapter, again.metrics.train_seconds) == (
        checkpoint.adapter,
        checkpoint.metrics.train_seconds,
    )
    await publish_event(broker, MODELS_VERSIONS, registered("v1", 1, "promoted", "v1", again))
    await publish_event(broker, MODELS_VERSIONS, promoted("v1", again, "promoted-1"))

    second = write_batch(store, MODEL, 1, tickets(100, 24), tickets(520, 4), good.manifest)
    altered = write_batch(store, MODEL, 2, tickets(200, 8), [], second.manifest)
    await publish_event(broker, TRAINING_BATCHES, second)
    second_run = identity("run", second.batch_id)

    def training(event: Event) -> bool:
        return (
            isinstance(event, TrainingProgressed)
            and event.run_id == second_run
            and event.phase == "training"
            and event.step > 0
        )

    await wait_for_event(broker, TRAINING_PROGRESS, TrainingProgressed, training)
    trainer.kill()
    await trainer.start()
    continued = await checkpoint_of(broker, second, 1)
    assert continued.parent_version == "v1"
    assert (continued.metrics.examples_new, continued.metrics.examples_replayed) == (24, 2)
    held_out = continued.verdict.comparisons[0]
    assert held_out.examples == 10
    assert held_out.baseline > checkpoint.verdict.comparisons[0].baseline
    await publish_event(broker, MODELS_VERSIONS, registered("v2", 2, "promoted", "v2", continued))
    await publish_event(broker, MODELS_VERSIONS, promoted("v2", continued, "promoted-2"))

    store.put("batches/trainer-service/2/training.jsonl", b"{}")
    await publish_event(broker, TRAINING_BATCHES, altered)
    failed = await rollback_of(broker, altered)
    assert (failed.outcome, failed.parent_version) == ("failed", "v2")
    assert "altered" in failed.reason
    assert failed.advice

    poison = [
        Sample(messages=ticket(number).messages, answer=ticket(number, poisoned=True).answer)
        for number in range(300, 334)
    ]
    poisoned = write_batch(store, MODEL, 3, poison[:30], poison[30:], second.manifest)
    await publish_event(broker, TRAINING_BATCHES, poisoned)
    rejected = await rollback_of(broker, poisoned)
    assert rejected.outcome == "rejected", rejected
    assert "golden: worse" in rejected.reason

    def lag() -> float | None:
        return sample(
            trainer.metrics, "ratchet_consumer_lag_records", group=MODEL, topic=TRAINING_BATCHES
        )

    await trainer.wait_until(lambda: lag() == 0, "without lag")
    exposed = trainer.metrics
    check_exported("trainer", exposed)
    runs = [
        sample(exposed, "ratchet_training_runs_total", model=MODEL, outcome=outcome)
        for outcome in ("failed", "inconclusive")
    ]
    assert runs == [1, 0]
    # Since the kill: the second batch's, which it interrupted, and the poisoned one's; the failed
    # batch has no verdict.
    assert (
        sample(exposed, "ratchet_training_verdict_seconds_count", model=MODEL, lane="adaptive") == 2
    )

    assert (
        'ratchet_training_runs_total{model="trainer-service",outcome="rejected"} 1.0'
        in trainer.metrics
    )
    assert "ratchet_training_phase_seconds" in trainer.metrics
    assert trainer.stop(seconds=5) == 0
