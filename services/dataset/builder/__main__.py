"""Composition root of the builder: `python -m services.dataset.builder`."""

import asyncio
import sys
from collections.abc import Sequence
from contextlib import aclosing

from services.dataset.builder.requests import TrainingRequests
from services.dataset.builder.settings import BuilderSettings
from services.dataset.builder.worker_process import WorkerProcess
from shared.clock import SystemClock
from shared.config.models import load_models
from shared.config.settings import read_settings
from shared.events import BatchReady
from shared.failpoints import arm
from shared.http.health_server import serve_health
from shared.kafka.announced_batches import read_announced_batches
from shared.kafka.client import KafkaConsumer, KafkaProducer
from shared.kafka.end_offsets import EndOffsets
from shared.kafka.lag import export_lag
from shared.kafka.security import kafka_security
from shared.logs import configure
from shared.messaging.topics import TRAINING_REQUESTS
from shared.observability.health import Health
from shared.observability.metrics import Metrics
from shared.observability.process_metrics import export_process_metrics
from shared.service.consume import consume
from shared.service.exit_status import exit_status
from shared.service.runtime import Runtime
from shared.service.stop_signals import serve_until_signal
from shared.storage.object_store import FsspecStore, local_folder

STALL_MARGIN_SECONDS = 300.0
"""Time beyond the limit of one request after which the builder is not live."""


async def serve(settings: BuilderSettings, stop_requested: asyncio.Event) -> None:
    """Run until a stop is requested. The current request is then abandoned, and begins again at
    the next start. Raises RatchetError on an error that it cannot recover from.
    """
    log = configure("builder", settings.log_level, settings.log_format)
    arm(settings.failpoints, log)
    clock, metrics = SystemClock(), Metrics("builder")
    seconds = settings.build_minutes * 60
    health = Health(clock, seconds + STALL_MARGIN_SECONDS)
    runtime = Runtime("builder", clock, log, metrics, health)
    models = load_models(settings.models)
    security = kafka_security(settings)
    producer = KafkaProducer(settings.bootstrap_servers, security)
    consumer = KafkaConsumer(
        settings.bootstrap_servers,
        settings.builder_group,
        (TRAINING_REQUESTS,),
        session_seconds=settings.session_seconds,
        security=security,
    )

    async def read_batches() -> Sequence[BatchReady]:
        return await read_announced_batches(settings.bootstrap_servers, security)

    requests = TrainingRequests(
        models,
        settings.bases,
        FsspecStore(settings.object_store),
        producer,
        read_batches,
        WorkerProcess(seconds).build,
        runtime,
    )

    async def consume_requests() -> None:
        await producer.start()
        await consumer.start()
        health.mark_ready()
        log.info("ready", models=sorted(models.files))
        async with aclosing(consumer.records()) as records:
            await consume(records, requests.handle, consumer.commit, producer, runtime)

    metrics.init_series("ratchet_dead_letters_total", topic=TRAINING_REQUESTS)
    export_process_metrics(metrics, health, {"object_store": local_folder(settings.object_store)})
    stop_health = serve_health(health, metrics.registry, settings.http_host, settings.builder_port)
    consuming = asyncio.create_task(consume_requests())
    stopping = asyncio.create_task(stop_requested.wait())
    exporting_lag = asyncio.create_task(
        export_lag(
            consumer,
            settings.builder_group,
            (TRAINING_REQUESTS,),
            EndOffsets(settings.bootstrap_servers, security=security),
            metrics,
        )
    )
    try:
        await asyncio.wait({consuming, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if consuming.done():
            consuming.result()
        log.info("stopping")
    finally:
        for task in (consuming, stopping, exporting_lag):
            task.cancel()
        await asyncio.gather(consuming, stopping, exporting_lag, return_exceptions=True)
        await consumer.stop()
        await producer.stop()
        stop_health()


def _run() -> None:
    settings = read_settings(BuilderSettings)
    asyncio.run(serve_until_signal(lambda stop_requested: serve(settings, stop_requested)))


def main() -> int:
    """Run the builder and return its exit status."""
    return exit_status("builder", _run)


if __name__ == "__main__":
    sys.exit(main())
