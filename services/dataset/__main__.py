"""Composition root of the dataset service: `python -m services.dataset`."""

import asyncio
import sys

from services.dataset.app import FaustTable, attach
from services.dataset.handlers import Dataset
from services.dataset.settings import DatasetSettings
from shared.clock import SystemClock
from shared.config.models import load_models
from shared.config.settings import read_settings
from shared.failpoints import arm
from shared.http.health_server import serve_health
from shared.kafka.client import KafkaProducer
from shared.kafka.end_offsets import EndOffsets
from shared.kafka.security import kafka_security
from shared.kafka.streams import OffsetCommitter, create_app, run_app
from shared.logs import configure
from shared.messaging.topics import FEEDBACK_SCORED
from shared.observability.health import Health
from shared.observability.metrics import Metrics
from shared.observability.process_metrics import export_process_metrics
from shared.observability.tracing import create_tracing
from shared.service.exit_status import exit_status
from shared.service.retry import RetryPolicy
from shared.service.runtime import Runtime
from shared.storage.counted_store import CountedStore
from shared.storage.object_store import FsspecStore, local_folder


async def serve(settings: DatasetSettings) -> None:
    """Run until SIGTERM. Raises RatchetError on an error that it cannot recover from."""
    log = configure("dataset", settings.log_level, settings.log_format)
    arm(settings.failpoints, log)
    clock, metrics = SystemClock(), Metrics("dataset")
    traces = create_tracing("dataset", settings.traces)
    health = Health(clock, settings.stalled_seconds, settings.recovery_seconds)
    runtime = Runtime("dataset", clock, log, metrics, health, traces)
    models = load_models(settings.models)
    security = kafka_security(settings)
    producer = KafkaProducer(settings.bootstrap_servers, security)
    app = create_app(settings.dataset_group, settings, security)
    commits = OffsetCommitter(
        app,
        FEEDBACK_SCORED,
        health,
        EndOffsets(settings.bootstrap_servers, security=security),
        metrics,
    )
    table, store = FaustTable(app), CountedStore(FsspecStore(settings.object_store), metrics)
    dataset = Dataset(
        models, table, store, producer, runtime, RetryPolicy(settings.dataset_retries)
    )
    attach(app, table, dataset, commits, health)
    export_process_metrics(
        metrics,
        health,
        {"data": settings.data, "object_store": local_folder(settings.object_store)},
    )
    stop_health = serve_health(health, metrics.registry, settings.http_host, settings.dataset_port)
    try:
        await producer.start()
        await run_app(app, commits, log)
    finally:
        await producer.stop()
        await asyncio.to_thread(traces.close)
        stop_health()


def main() -> int:
    """Run the service and return its exit status."""
    return exit_status("dataset", lambda: asyncio.run(serve(read_settings(DatasetSettings))))


if __name__ == "__main__":
    sys.exit(main())
