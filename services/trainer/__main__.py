"""The trainer: `python -m services.trainer`."""

import asyncio
import signal
import sys
from collections.abc import Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from services.trainer.app import Trainer
from services.trainer.environment import require_trainable_machine
from services.trainer.errors import RunFailed
from services.trainer.machine.bases import locate_base
from services.trainer.run.progress import initialize_run_metrics
from services.trainer.run_folder import RunFolders
from services.trainer.settings import TrainerSettings
from services.trainer.window_queue import WindowQueue
from services.trainer.worker.client import LOCAL, TrainingProcess, ray_launch
from shared.clock import SystemClock
from shared.config.model_file import Models, load_models
from shared.config.settings import read_settings
from shared.errors import Misconfigured
from shared.exit_status import exit_status
from shared.failpoints import arm
from shared.http.health_server import serve_health
from shared.kafka.client import KafkaConsumer, KafkaProducer
from shared.kafka.end_offsets import EndOffsets
from shared.kafka.lag import export_lag
from shared.kafka.security import kafka_security
from shared.kafka.topic_reader import KafkaTopicReader
from shared.logs import configure
from shared.messaging.bus import Record
from shared.messaging.consume import consume
from shared.messaging.topics import (
    DATASET_WITHDRAWALS,
    MODELS_VERSIONS,
    TRAINING_BATCHES,
    TRAINING_CHECKPOINTS,
    TRAINING_ROLLBACKS,
)
from shared.observability.health import Health
from shared.observability.metrics import Metrics
from shared.observability.process_metrics import export_process_metrics
from shared.observability.tracing import create_tracing
from shared.runtime import Runtime
from shared.storage.counted_store import CountedStore
from shared.storage.object_store import FsspecStore, local_folder

VIEW_TOPICS = (DATASET_WITHDRAWALS, TRAINING_CHECKPOINTS, TRAINING_ROLLBACKS, MODELS_VERSIONS)


async def serve(settings: TrainerSettings, stop_requested: asyncio.Event) -> None:
    """Run until it is told to stop: then a run leaves its checkpoint, the child is ended, nothing
    is published and nothing committed. Raises RatchetError when it cannot go on.
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
    folders = sorted({base.folder for base in bases.values()})
    unfinished, cluster = settings.work.absolute(), settings.ray_address
    launch = (
        LOCAL
        if cluster is None
        else ray_launch(cluster, settings.ray_gpus, settings.threads, unfinished, folders)
    )
    child = TrainingProcess(settings.threads, log, settings.memory_limit, launch)
    security = kafka_security(settings)
    producer = KafkaProducer(settings.bootstrap_servers, security)
    others = KafkaTopicReader(settings.bootstrap_servers, VIEW_TOPICS, security)
    store, runs = CountedStore(FsspecStore(settings.object_store), metrics), RunFolders(unfinished)
    trainer = Trainer(
        models, bases, store, runs, child, others, producer, clock, metrics, health, log, traces
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

    async def work() -> None:
        await others.start()
        await _warm_up(trainer, None if cluster else require_trainable_machine(log))
        await producer.start()
        await consumer.start()
        health.mark_ready()
        log.info("ready", models=sorted(models.files))
        async with aclosing(consumer.records()) as records:
            waiting = WindowQueue(
                trainer.window_opens_at, consumer.owns, consumer.commit, clock, metrics, log
            )
            async with aclosing(waiting.ready_records(records)) as ready:
                await consume(ready, handle, waiting.commit, producer, runtime)

    metrics.init_series("ratchet_dead_letters_total", topic=TRAINING_BATCHES)
    initialize_run_metrics(metrics, models)
    export_process_metrics(
        metrics,
        health,
        {"work": settings.work, "object_store": local_folder(settings.object_store)},
    )
    stop_health = serve_health(health, metrics.registry, settings.http_host, settings.trainer_port)
    working, telling = asyncio.create_task(work()), asyncio.create_task(stop_requested.wait())
    ends = EndOffsets(settings.bootstrap_servers, security=security)
    watching = asyncio.create_task(
        export_lag(consumer, settings.trainer_group, (TRAINING_BATCHES,), ends, metrics)
    )
    try:
        await asyncio.wait({working, telling}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
        log.info("stopping")
        await trainer.pause(settings.stop_seconds)
    finally:
        for task in (working, telling, watching):
            task.cancel()
        await asyncio.gather(working, telling, watching, return_exceptions=True)
        await child.stop()
        await consumer.stop()
        await others.stop()
        await producer.stop()
        await asyncio.to_thread(traces.close)
        stop_health()


@dataclass(frozen=True)
class PauseOnRebalance:
    """What a rebalance means for the run in hand: it goes on from its checkpoint, here or
    elsewhere.
    """

    trainer: Trainer
    timeout_seconds: float

    async def before_revoke(self) -> None:
        await self.trainer.pause(self.timeout_seconds)

    async def after_assign(self) -> None:
        await self.trainer.settled()


async def _warm_up(trainer: Trainer, look: Coroutine[Any, Any, None] | None) -> None:
    """Meanwhile the machine is looked at, where it is this one that trains; what is the matter with
    it says more than what fails because of it.
    """
    looking = asyncio.ensure_future(look or asyncio.sleep(0))
    try:
        await trainer.warm_up()
        await looking
    except RunFailed as failure:
        await looking
        raise Misconfigured(f"{failure.reason}; {failure.advice}") from failure
    finally:
        looking.cancel()


def _check_gate_sets(models: Models) -> None:
    for model in models.files:
        models.golden(model)
        models.regression_set(model)
        models.regression_prompts(model)
        for lane in models.get(model).lanes:
            models.rehearsal(model, lane)


async def _serve_until_signal(settings: TrainerSettings) -> None:
    told_to_stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told_to_stop.set)
    await serve(settings, told_to_stop)


def main() -> int:
    """The exit status."""
    return exit_status(
        "trainer", lambda: asyncio.run(_serve_until_signal(read_settings(TrainerSettings)))
    )


if __name__ == "__main__":
    sys.exit(main())
