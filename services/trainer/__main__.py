"""Composition root of the trainer: `python -m services.trainer`."""

import asyncio
import sys
from collections.abc import Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from services.trainer.app import Trainer
from services.trainer.batch_queue import BatchQueue
from services.trainer.bus_view.view import VIEW_TOPICS
from services.trainer.environment import require_trainable_machine
from services.trainer.errors import RunFailed
from services.trainer.machine.bases import locate_base
from services.trainer.run.progress import initialize_run_metrics
from services.trainer.run_folder import WorkFolder
from services.trainer.settings import TrainerSettings
from services.trainer.worker.client import LOCAL, TrainingProcess, ray_launch
from shared.clock import SystemClock
from shared.config.models import Models, load_models
from shared.config.settings import read_settings
from shared.errors import Misconfigured
from shared.failpoints import arm
from shared.http.health_server import serve_health
from shared.kafka.client import KafkaConsumer, KafkaProducer
from shared.kafka.end_offsets import EndOffsets
from shared.kafka.lag import export_lag
from shared.kafka.security import kafka_security
from shared.kafka.topic_reader import KafkaTopicReader
from shared.logs import configure
from shared.messaging.bus import Record
from shared.messaging.topics import TRAINING_BATCHES
from shared.observability.health import Health
from shared.observability.metrics import Metrics
from shared.observability.process_metrics import export_process_metrics
from shared.observability.tracing import create_tracing
from shared.service.consume import consume
from shared.service.exit_status import exit_status
from shared.service.runtime import Runtime
from shared.service.stop_signals import serve_until_signal
from shared.storage.counted_store import CountedStore
from shared.storage.object_store import FsspecStore, local_folder


async def serve(settings: TrainerSettings, stop_requested: asyncio.Event) -> None:
    """Run the service until a stop is requested. Then the current run saves its checkpoint, the
    training process ends, and nothing is published or committed.

    Raises RatchetError if the service cannot continue.
    """
    log = configure("trainer", settings.log_level, settings.log_format)
    arm(settings.failpoints, log)
    clock, metrics = SystemClock(), Metrics("trainer")
    traces = create_tracing("trainer", settings.traces)
    health = Health(clock, settings.trainer_stalled_seconds)
    runtime = Runtime("trainer", clock, log, metrics, health, traces)
    models = load_models(settings.models)
    _check_gate_sets(models)
    bases = {
        name: await asyncio.to_thread(locate_base, settings.bases, model.base.training)
        for name, model in models.files.items()
    }
    base_folders = sorted({base.folder for base in bases.values()})
    work, cluster = settings.work.absolute(), settings.ray_address
    launch = (
        LOCAL
        if cluster is None
        else ray_launch(cluster, settings.ray_gpus, settings.threads, work, base_folders)
    )
    process = TrainingProcess(settings.threads, log, settings.memory_limit, launch)
    security = kafka_security(settings)
    producer = KafkaProducer(settings.bootstrap_servers, security)
    view_reader = KafkaTopicReader(settings.bootstrap_servers, VIEW_TOPICS, security)
    store = CountedStore(FsspecStore(settings.object_store), metrics)
    trainer = Trainer(
        models, bases, store, WorkFolder(work), process, view_reader, producer, runtime
    )
    consumer = KafkaConsumer(
        settings.bootstrap_servers,
        settings.trainer_group,
        (TRAINING_BATCHES,),
        session_seconds=settings.session_seconds,
        handover_seconds=settings.stop_seconds,
        rebalance_handler=PauseOnRebalance(trainer, settings.stop_seconds),
        security=security,
    )

    async def handle(record: Record) -> None:
        await trainer.handle(record, lambda: consumer.owns_after_rebalance(record))

    async def consume_batches() -> None:
        await view_reader.start()
        await _warm_up(trainer, None if cluster else require_trainable_machine(log))
        await producer.start()
        await consumer.start()
        health.mark_ready()
        log.info("ready", models=sorted(models.files))
        queue = BatchQueue(
            trainer.wait_of,
            trainer.refresh,
            consumer.owns,
            consumer.commit,
            runtime,
            resumed=trainer.resumed_batches,
        )
        async with (
            aclosing(consumer.records()) as records,
            aclosing(queue.ready_records(records)) as ready,
        ):
            await consume(ready, handle, queue.commit, producer, runtime)

    metrics.init_series("ratchet_dead_letters_total", topic=TRAINING_BATCHES)
    initialize_run_metrics(metrics, models)
    export_process_metrics(
        metrics,
        health,
        {"work": settings.work, "object_store": local_folder(settings.object_store)},
    )
    stop_health = serve_health(health, metrics.registry, settings.http_host, settings.trainer_port)
    consuming = asyncio.create_task(consume_batches())
    stopping = asyncio.create_task(stop_requested.wait())
    end_offsets = EndOffsets(settings.bootstrap_servers, security=security)
    exporting_lag = asyncio.create_task(
        export_lag(consumer, settings.trainer_group, (TRAINING_BATCHES,), end_offsets, metrics)
    )
    try:
        await asyncio.wait({consuming, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if consuming.done():
            consuming.result()
        log.info("stopping")
        await trainer.pause(settings.stop_seconds)
    finally:
        for task in (consuming, stopping, exporting_lag):
            task.cancel()
        await asyncio.gather(consuming, stopping, exporting_lag, return_exceptions=True)
        await process.stop()
        await consumer.stop()
        await view_reader.stop()
        await producer.stop()
        await asyncio.to_thread(traces.close)
        stop_health()


@dataclass(frozen=True)
class PauseOnRebalance:
    """Pauses the current run before partitions move; it resumes from its checkpoint, here or on
    its new owner.
    """

    trainer: Trainer
    timeout_seconds: float

    async def before_revoke(self) -> None:
        await self.trainer.pause(self.timeout_seconds)

    async def after_assign(self) -> None:
        await self.trainer.after_rebalance()


async def _warm_up(trainer: Trainer, machine_check: Coroutine[Any, Any, None] | None) -> None:
    """Warm up, and check the machine meanwhile if training runs on it. The result of the check is
    raised first: it explains a failed warm-up better than the warm-up's own error.
    """
    checking = asyncio.ensure_future(machine_check or asyncio.sleep(0))
    try:
        await trainer.warm_up()
        await checking
    except RunFailed as failure:
        await checking
        raise Misconfigured(f"{failure.reason}; {failure.advice}") from failure
    finally:
        checking.cancel()


def _check_gate_sets(models: Models) -> None:
    """Read every file that a model's gate refers to, so that an invalid one fails at start."""
    for model in models.files:
        models.golden(model)
        models.regression_set(model)
        models.regression_prompts(model)
        for lane in models.get(model).lanes:
            models.rehearsal(model, lane)


def _run() -> None:
    settings = read_settings(TrainerSettings)
    asyncio.run(serve_until_signal(lambda stop_requested: serve(settings, stop_requested)))


def main() -> int:
    """Return the exit status."""
    return exit_status("trainer", _run)


if __name__ == "__main__":
    sys.exit(main())
