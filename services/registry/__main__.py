"""`python -m services.registry`: settings → database, bus, targets → consumer, publisher, deployer
and HTTP.
"""

import asyncio
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from uuid import uuid4

import uvicorn

from services.registry.api import retention as retention_api
from services.registry.api import routes as api
from services.registry.api.current_tokens import CurrentTokens
from services.registry.app import (
    GROUP,
    LIVE_GROUP,
    MOST_AT_ONCE,
    TOPICS,
    Registry,
    watch_trials,
)
from services.registry.deploy.deployer import Deployer
from services.registry.deploy.merged_models import Builds
from services.registry.deploy.targets.factory import targets_of
from services.registry.pages import routes as pages
from services.registry.retention.pruner import Pruner
from services.registry.settings import RegistrySettings
from services.registry.store.database import Database
from services.registry.store.outbox import Publisher
from shared.clock import SystemClock
from shared.config.model_file import load_models
from shared.config.settings import read
from shared.exit_status import exit_status
from shared.kafka.client import KafkaConsumer, KafkaProducer
from shared.kafka.end_offsets import LogEnds
from shared.kafka.lag import watch_lag
from shared.kafka.security import security_of
from shared.logs import configure
from shared.messaging.consume import consume, consume_batches
from shared.messaging.topics import FEEDBACK_SCORED
from shared.observability.health import Health
from shared.observability.metrics import Metrics
from shared.observability.process_metrics import show_vitals
from shared.observability.tracing import tracing
from shared.runtime import Runtime
from shared.storage.counted_store import CountedStore
from shared.storage.object_store import FsspecStore, local_folder


class _Server(uvicorn.Server):
    """A web server that leaves signals to the process."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def run(settings: RegistrySettings) -> None:
    """Until SIGTERM or SIGINT. Raises Unavailable when the bus or the database stays away."""
    clock, metrics = SystemClock(), Metrics("registry")
    log = configure("registry", settings.log_level, settings.log_format)
    models = load_models(settings.models)
    tokens = CurrentTokens(settings, log)
    database = Database(settings.database, settings.database_password_file)
    security = security_of(settings)
    producer = KafkaProducer(settings.bootstrap_servers, security)
    consumer = KafkaConsumer(settings.bootstrap_servers, GROUP, TOPICS, security=security)
    live = KafkaConsumer(
        settings.bootstrap_servers, LIVE_GROUP, (FEEDBACK_SCORED,), security=security
    )
    ends = partial(LogEnds, settings.bootstrap_servers, security=security)
    traces = tracing("registry", settings.traces)
    health = Health(clock)
    runtime = Runtime("registry", clock, log, metrics, health, traces)
    folders = {
        "merged": settings.merged,
        "object_store": local_folder(settings.object_store),
        "database": database.folder,
    }
    show_vitals(metrics, health, folders)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stopping.set)

    async with targets_of(models, settings) as targets:
        store = CountedStore(FsspecStore(settings.object_store), metrics)
        builds = Builds(database, store, models, settings.bases, settings.merged)
        replica = f"{socket.gethostname()} {uuid4().hex[:8]}"
        publisher = Publisher(database, producer, clock, log, replica)
        deployer = Deployer(
            database,
            targets,
            builds,
            publisher,
            clock,
            log,
            metrics,
            settings.merged_kept,
            replica,
            slowdown=settings.slowdown,
            tracing=traces,
        )
        pruner = Pruner(database, store, models, targets, builds, clock, log, metrics, replica)
        registry = Registry(database, models, publisher, deployer, clock, log, metrics, traces)
        application = api.build(registry, health, metrics.registry, tokens)
        application.include_router(retention_api.routes(models, pruner))
        pages.add(application, registry, store)
        web = uvicorn.Config(
            application,
            settings.http_host,
            settings.registry_port,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=2,
        )
        server = _Server(web)
        await asyncio.to_thread(database.bring_up_to_date)
        try:
            await producer.start()
            await consumer.start()
            await live.start()
            await registry.declare()
            work = [
                asyncio.create_task(
                    consume(consumer.records(), registry.handle, consumer.commit, producer, runtime)
                ),
                asyncio.create_task(
                    consume_batches(live.batches(MOST_AT_ONCE), registry.hear, live.commit, runtime)
                ),
                asyncio.create_task(publisher.run()),
                asyncio.create_task(deployer.run()),
                asyncio.create_task(pruner.run()),
                asyncio.create_task(watch_lag(consumer, GROUP, TOPICS, ends(), metrics)),
                asyncio.create_task(
                    watch_lag(live, LIVE_GROUP, (FEEDBACK_SCORED,), ends(), metrics)
                ),
                asyncio.create_task(watch_trials(registry, log)),
                asyncio.create_task(server.serve()),
            ]
            health.ready()
            log.info(
                "registry",
                address=f"http://{settings.http_host}:{settings.registry_port}",
                models=list(models.files),
            )
            asked = asyncio.create_task(stopping.wait())
            await asyncio.wait([asked, *work], return_when=asyncio.FIRST_COMPLETED)
            health.ready(False)
            consumer.finish()
            live.finish()
            server.should_exit = True
            # The record in hand is finished and committed, the last answers are given; the other
            # loops may end anywhere.
            await asyncio.wait([work[0], work[1], work[-1]], timeout=5)
            for task in (asked, *work):
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
    """The exit status."""
    return exit_status("registry", lambda: asyncio.run(run(read(RegistrySettings))))


if __name__ == "__main__":
    sys.exit(main())
