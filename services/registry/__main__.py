"""Composition root: `python -m services.registry` builds database, bus and targets from the
settings, and runs consumers, publisher, deployer and HTTP on them.
"""

import asyncio
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from uuid import uuid4

import httpx
import uvicorn

from services.registry.api import retention as retention_api
from services.registry.api import routes as api
from services.registry.api.current_tokens import CurrentTokens
from services.registry.api.training_requests import routes as training_requests
from services.registry.api.training_requests.requests import TrainingStarts
from services.registry.api.training_requests.uploads import Uploads, is_upload
from services.registry.app import GROUP, LIVE_GROUP, MAX_BATCH_SIZE, TOPICS, Registry
from services.registry.deploy.deployer import Deployer
from services.registry.deploy.deployment_runner import DeployPolicy
from services.registry.deploy.merged_models import MergedModels
from services.registry.deploy.targets.factory import open_targets
from services.registry.pages import routes as pages
from services.registry.pages.new_run.routes import add_new_run_pages
from services.registry.pages.playground.routes import add_playground_pages
from services.registry.retention.pruner import Pruner
from services.registry.settings import RegistrySettings
from services.registry.store.database import Database
from services.registry.store.outbox import OutboxPublisher
from services.registry.webhooks.endpoints import read_endpoints
from services.registry.webhooks.sender import WebhookSender
from shared.clock import SystemClock
from shared.config.models import load_models
from shared.config.settings import read_settings
from shared.http.bounded_server import listen, server_config
from shared.kafka.client import KafkaConsumer, KafkaProducer
from shared.kafka.end_offsets import EndOffsets
from shared.kafka.lag import export_lag
from shared.kafka.security import kafka_security
from shared.logs import configure
from shared.messaging.topics import FEEDBACK_SCORED
from shared.observability.health import Health
from shared.observability.metrics import Metrics
from shared.observability.process_metrics import export_process_metrics
from shared.observability.tracing import create_tracing
from shared.service.consume import consume, consume_batches
from shared.service.exit_status import exit_status
from shared.service.runtime import Runtime
from shared.storage.counted_store import CountedStore
from shared.storage.object_store import FsspecStore, local_folder


class _RegistryServer(uvicorn.Server):
    """A web server that leaves signal handling to the process."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def run(settings: RegistrySettings) -> None:
    """Run until SIGTERM or SIGINT. Raises Unavailable if Kafka or the database stays
    unavailable.
    """
    clock, metrics = SystemClock(), Metrics("registry")
    log = configure("registry", settings.log_level, settings.log_format)
    models = load_models(settings.models)
    tokens = CurrentTokens(settings, log)
    endpoints = read_endpoints(settings.webhooks_file, models.files)
    database = Database(settings.database, settings.database_password_file)
    security = kafka_security(settings)
    producer = KafkaProducer(settings.bootstrap_servers, security)
    consumer = KafkaConsumer(settings.bootstrap_servers, GROUP, TOPICS, security=security)
    live = KafkaConsumer(
        settings.bootstrap_servers, LIVE_GROUP, (FEEDBACK_SCORED,), security=security
    )
    ends = partial(EndOffsets, settings.bootstrap_servers, security=security)
    traces = create_tracing("registry", settings.traces)
    health = Health(clock)
    runtime = Runtime("registry", clock, log, metrics, health, traces)
    folders = {
        "merged": settings.merged,
        "object_store": local_folder(settings.object_store),
        "database": database.folder,
    }
    export_process_metrics(metrics, health, folders)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stopping.set)

    async with open_targets(models, settings) as targets, httpx.AsyncClient() as webhook_client:
        store = CountedStore(FsspecStore(settings.object_store), metrics)
        merged_models = MergedModels(database, store, models, settings.bases, settings.merged)
        replica = f"{socket.gethostname()} {uuid4().hex[:8]}"
        publisher = OutboxPublisher(database, producer, clock, log, replica)
        policy = DeployPolicy(settings.merged_kept, settings.slowdown)
        deployer = Deployer(database, targets, merged_models, policy, runtime, replica)
        pruner = Pruner(database, store, models, targets, merged_models, runtime, replica)
        sender = WebhookSender(database, endpoints, webhook_client, runtime, replica)
        registry = Registry(database, models, deployer, runtime)
        application = api.build(registry, health, metrics.registry, tokens, settings.require_tokens)
        application.include_router(retention_api.routes(models, pruner))
        uploads = Uploads(store, settings.upload_mib << 20)
        starts = TrainingStarts(registry, store, uploads, settings.bases)
        application.include_router(training_requests.routes(starts))
        pages.add_pages(application, registry, store)
        add_new_run_pages(application, starts)
        add_playground_pages(application, registry)
        server = _RegistryServer(
            server_config(application, shutdown_seconds=2, streams_body=is_upload)
        )
        await asyncio.to_thread(database.migrate)
        try:
            await producer.start()
            await consumer.start()
            await live.start()
            await registry.register_declared_models()
            sockets = listen(settings.http_host, settings.registry_port)
            work = [
                asyncio.create_task(
                    consume(consumer.records(), registry.handle, consumer.commit, producer, runtime)
                ),
                asyncio.create_task(
                    consume_batches(
                        live.batches(MAX_BATCH_SIZE),
                        registry.record_live_feedback,
                        live.commit,
                        runtime,
                    )
                ),
                asyncio.create_task(publisher.run()),
                asyncio.create_task(deployer.run()),
                asyncio.create_task(pruner.run()),
                asyncio.create_task(sender.run()),
                asyncio.create_task(export_lag(consumer, GROUP, TOPICS, ends(), metrics)),
                asyncio.create_task(
                    export_lag(live, LIVE_GROUP, (FEEDBACK_SCORED,), ends(), metrics)
                ),
                asyncio.create_task(registry.watch_trials()),
                asyncio.create_task(server.serve(sockets)),
            ]
            health.mark_ready()
            log.info(
                "registry",
                address=f"http://{settings.http_host}:{settings.registry_port}",
                models=list(models.files),
            )
            stop = asyncio.create_task(stopping.wait())
            await asyncio.wait([stop, *work], return_when=asyncio.FIRST_COMPLETED)
            health.mark_ready(False)
            consumer.stop_after_current()
            live.stop_after_current()
            server.should_exit = True
            # Let both consumers finish and commit their current records, and the server its last
            # responses; the other loops may be cancelled at any point.
            await asyncio.wait([work[0], work[1], work[-1]], timeout=5)
            for task in (stop, *work):
                task.cancel()
            for ended in await asyncio.gather(*work, return_exceptions=True):
                if isinstance(ended, Exception):
                    raise ended
        finally:
            await consumer.stop()
            await live.stop()
            await producer.stop()
            await asyncio.to_thread(traces.close)
            database.close()
            log.info("stopped")


def main() -> int:
    """Run the service and return its exit status."""
    return exit_status("registry", lambda: asyncio.run(run(read_settings(RegistrySettings))))


if __name__ == "__main__":
    sys.exit(main())
