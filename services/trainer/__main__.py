"""The trainer: `python -m services.trainer`."""

import asyncio
import signal
import sys
from collections.abc import Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from services.trainer.app import Trainer
from services.trainer.environment import require_able_machine
from services.trainer.errors import RunFailed
from services.trainer.machine.bases import locate
from services.trainer.run.progress import expect_runs
from services.trainer.run_folder import Runs
from services.trainer.settings import TrainerSettings
from services.trainer.window_queue import Waiting
from services.trainer.worker.client import BESIDE, ChildProcess, on_ray
from shared.clock import SystemClock
from shared.config.model_file import Models, load_models
from shared.config.settings import read
from shared.errors import Misconfigured
from shared.exit_status import exit_status
from shared.failpoints import arm
from shared.http.health_server import serve_health
from shared.kafka.client import KafkaConsumer, KafkaProducer
from shared.kafka.end_offsets import LogEnds
from shared.kafka.lag import watch_lag
from shared.kafka.security import security_of
from shared.kafka.topic_reader import KafkaReader
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
from shared.observability.process_metrics import show_vitals
from shared.observability.tracing import tracing
from shared.runtime import Runtime
from shared.storage.counted_store import CountedStore
from shared.storage.object_store import FsspecStore, local_folder

OTHERS = (DATASET_WITHDRAWALS, TRAINING_CHECKPOINTS, TRAINING_ROLLBACKS, MODELS_VERSIONS)


async def serve(settings: TrainerSettings, told_to_stop: asyncio.Event) -> None:
    """Run until it is told to stop: then a run leaves its checkpoint, the child is ended, nothing
    is published and nothing committed. Raises RatchetError when it cannot go on.
    """
    log = configure("trainer", settings.log_level, settings.log_format)
    arm(settings.failpoints, log)
    clock, metrics = SystemClock(), Metrics("trainer")
    traces = tracing("trainer", settings.traces)
    health = Health(clock, settings.trainer_stalled_seconds)
    runtime = Runtime("trainer", clock, log, metrics, health, traces)
    models = load_models(settings.models)
    _check_sets(models)
    bases = {
        name: await asyncio.to_thread(locate, settings.bases, model.base.training)
        for name, model in models.files.items()
    }
    folders = sorted({base.folder for base in bases.values()})
    unfinished, cluster = settings.work.absolute(), settings.ray_address
    launch = (
        BESIDE
        if cluster is None
        else on_ray(cluster, settings.ray_gpus, settings.threads, unfinished, folders)
    )
    child = ChildProcess(settings.threads, log, settings.memory_limit, launch)
    security = security_of(settings)
    producer = KafkaProducer(settings.bootstrap_servers, security)
    others = KafkaReader(settings.bootstrap_servers, OTHERS, security)
    store, runs = CountedStore(FsspecStore(settings.object_store), metrics), Runs(unfinished)
    trainer = Trainer(
        models, bases, store, runs, child, others, producer, clock, metrics, health, log, traces
    )
    consumer = KafkaConsumer(
        settings.bootstrap_servers,
        settings.trainer_group,
        (TRAINING_BATCHES,),
        session_seconds=settings.session_seconds,
        handing_over_seconds=settings.stop_seconds,
        rebalances=HandingOver(trainer, settings.stop_seconds),
        security=security,
    )

    async def handle(record: Record) -> None:
        await trainer.handle(record, lambda: consumer.keeps(record))

    async def work() -> None:
        await others.start()
        await _warm_up(trainer, None if cluster else require_able_machine(log))
        await producer.start()
        await consumer.start()
        health.ready()
        log.info("ready", models=sorted(models.files))
        async with aclosing(consumer.records()) as records:
            waiting = Waiting(trainer.opens_at, consumer.owns, consumer.commit, clock, metrics, log)
            async with aclosing(waiting.among(records)) as ready:
                await consume(ready, handle, waiting.commit, producer, runtime)

    metrics.expect("ratchet_dead_letters_total", topic=TRAINING_BATCHES)
    expect_runs(metrics, models)
    show_vitals(
        metrics,
        health,
        {"work": settings.work, "object_store": local_folder(settings.object_store)},
    )
    stop_health = serve_health(health, metrics.registry, settings.http_host, settings.trainer_port)
    working, telling = asyncio.create_task(work()), asyncio.create_task(told_to_stop.wait())
    ends = LogEnds(settings.bootstrap_servers, security=security)
    watching = asyncio.create_task(
        watch_lag(consumer, settings.trainer_group, (TRAINING_BATCHES,), ends, metrics)
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
class HandingOver:
    """What a rebalance means for the run in hand: it goes on from its checkpoint, here or
    elsewhere.
    """

    trainer: Trainer
    seconds: float

    async def leaving(self) -> None:
        await self.trainer.pause(self.seconds)

    async def settled(self) -> None:
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


def _check_sets(models: Models) -> None:
    for model in models.files:
        models.golden(model)
        models.retention(model)
        models.canaries(model)
        for lane in models.get(model).lanes:
            models.rehearsal(model, lane)


async def _until_told_to_stop(settings: TrainerSettings) -> None:
    told_to_stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told_to_stop.set)
    await serve(settings, told_to_stop)


def main() -> int:
    """The exit status."""
    return exit_status("trainer", lambda: asyncio.run(_until_told_to_stop(read(TrainerSettings))))


if __name__ == "__main__":
    sys.exit(main())
