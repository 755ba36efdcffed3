"""Faust application: partition assignment, streams and recovered tables. Offsets are committed
here, after their effect.

Faust's own acknowledgements are off (`acks=False` on the source topic). They count an event as done
when its handler raised, was cancelled at shutdown, or was skipped in a rebalance, and they commit
even if a table's changelog could not be written. Instead, `OffsetCommitter` receives each event
with the deliveries that it caused, and commits delivered events in log order.

Only this module, `faust_transport` and the `app.py` of the stream services import Faust.
"""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import faust
from faust.types import TP
from pydantic import Field

from shared.config.settings import ServiceSettings
from shared.errors import BusUnavailable
from shared.failpoints import FailpointSetting, reach
from shared.kafka.end_offsets import EndOffsets
from shared.kafka.faust_metrics import FaustMetrics
from shared.kafka.faust_transport import CommittedTransport
from shared.kafka.lag import set_lag
from shared.kafka.security import PLAINTEXT, SASL_MECHANISM, Security
from shared.logs import Log
from shared.messaging.bus import Record
from shared.observability.health import Health
from shared.observability.metrics import Metrics

COMMIT_SECONDS = 1.0


class StreamSettings(ServiceSettings):
    """Additional settings of a Faust service."""

    data: Annotated[Path, Field(description="folder for Faust's files")] = Path(".ratchet/faust")
    session_seconds: Annotated[
        float,
        Field(
            ge=6,
            le=300,
            description="session timeout: a worker without a heartbeat for so long is lost",
        ),
    ] = 15.0
    stalled_seconds: Annotated[
        float,
        Field(ge=5, description="not live after this time with pending events and no commit"),
    ] = 60.0
    recovery_seconds: Annotated[
        float, Field(ge=5, description="not live after this time of joining and recovery")
    ] = 600.0
    failpoints: FailpointSetting = ()


def create_app(group: str, settings: StreamSettings, security: Security = PLAINTEXT) -> faust.App:
    """Create a Faust app that opens no port, creates no topic and commits nothing.

    `group` is also its consumer group.
    """
    folder = settings.data / group
    folder.mkdir(parents=True, exist_ok=True)
    app = faust.App(
        group,
        broker=[f"kafka://{server.strip()}" for server in settings.bootstrap_servers.split(",")],
        broker_credentials=_credentials(security),
        store="memory://",
        datadir=folder,
        autodiscover=False,
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
        stream_wait_empty=False,
        stream_buffer_maxsize=1024,
        broker_session_timeout=settings.session_seconds,
        broker_heartbeat_interval=settings.session_seconds / 5,
        producer_acks=-1,
        producer_linger=0.005,
        producer_max_request_size=4 << 20,
    )
    app.transport = CommittedTransport(app.conf.broker_consumer, app)
    return app


def _credentials(security: Security) -> Any:
    """Convert the security options for all of Faust's clients: stream, changelogs and producer."""
    if security.context is None:
        return None
    if security.username is None:
        return faust.SSLCredentials(security.context)
    return faust.SASLCredentials(
        username=security.username,
        password=security.password,
        ssl_context=security.context,
        mechanism=SASL_MECHANISM,
    )


def source_topic(app: faust.App, name: str) -> Any:
    """Return a topic of raw records, decoded by Ratchet and committed by `OffsetCommitter`."""
    return app.topic(
        name,
        key_type=bytes,
        value_type=bytes,
        key_serializer="raw",
        value_serializer="raw",
        acks=False,
        allow_empty=True,
        internal=True,
    )


def record_of(event: Any) -> Record:
    """Convert a Faust event to a record."""
    message = event.message
    return Record(
        message.topic,
        message.partition,
        message.offset,
        message.key,
        message.value,
        tuple(message.headers or ()),
    )


@dataclass(frozen=True, slots=True)
class _Handled:
    partition: TP
    offset: int
    generation: int
    deliveries: tuple[Awaitable[Any], ...]


class OffsetCommitter:
    """The only place where a Faust service commits offsets.

    Deliveries of many events may be in flight at a time; they are awaited in order.
    """

    def __init__(
        self,
        app: faust.App,
        topic: str,
        health: Health,
        ends: EndOffsets,
        metrics: Metrics,
        in_flight: int = 1000,
    ) -> None:
        self._app = app
        self._topic = topic
        self._health = health
        self._ends = ends
        self._metrics = metrics
        metrics.registry.register(FaustMetrics(app.monitor))
        self._handled: asyncio.Queue[_Handled] = asyncio.Queue(in_flight)
        self._handled_offsets: dict[TP, int] = {}
        self._seeks_back = False
        self._committed: dict[TP, int] = {}
        app.on_partitions_revoked.connect(self._on_revoked, weak=False)
        app.on_partitions_assigned.connect(self._on_assigned, weak=False)
        app.on_rebalance_complete.connect(self._on_rebalance_complete, weak=False)

    async def commit_after(self, event: Any, *deliveries: Awaitable[Any]) -> None:
        """Register an event as handled once `deliveries` are done; call it in log order.

        Waits while too many events are in flight.
        """
        message = event.message
        await self._handled.put(
            _Handled(message.tp, message.offset, message.generation_id, deliveries)
        )

    async def run(self) -> None:
        """Commit until cancelled: when the queue is empty, and at least every second.

        Propagates the exception of a delivery: nothing after the last committed offset counts as
        done then.
        """
        loop = asyncio.get_running_loop()
        committed_at = loop.time()
        while True:
            handled = await self._handled.get()
            for delivery in handled.deliveries:
                # A stop must not cancel a delivery: Faust would log an error for a message
                # without a waiter.
                await asyncio.shield(delivery)
            await reach("stream.delivered")
            # After a rebalance events are delivered again from the committed offset; earlier
            # ones are ignored.
            if handled.generation == self._app.consumer_generation_id:
                self._handled_offsets[handled.partition] = handled.offset + 1
            if self._handled.empty() or loop.time() - committed_at > COMMIT_SECONDS:
                await self.commit()
                committed_at = loop.time()

    async def commit(self) -> None:
        """Commit handled events.

        Partitions that moved to another worker are skipped; it receives their events again.
        """
        if offsets := {
            tp: offset
            for tp, offset in self._handled_offsets.items()
            if self._committed.get(tp) != offset
        }:
            # Faust has no public API to commit given offsets; its own `commit` commits only
            # acknowledged messages.
            consumer: Any = self._app.consumer
            if not await consumer._commit(offsets):
                return
            self._committed.update(offsets)

    async def watch_progress(self, seconds: float = 2.0) -> None:
        """Report how long events have waited, until cancelled: in a partition with pending events
        only a commit counts as progress.

        A blocked event loop reports nothing, which does not count as progress either.
        """
        loop = asyncio.get_running_loop()
        since: dict[tuple[TP, int], float] = {}
        self._health.mark_recovering()
        await self._ends.start()
        try:
            while True:
                if not self._health.is_recovering:
                    waiting = await self._waiting()
                    now = loop.time()
                    since = {place: since.get(place, now) for place in waiting}
                    self._health.record_progress(
                        busy=True, ago=now - min(since.values(), default=now)
                    )
                await asyncio.sleep(seconds)
        finally:
            await self._ends.stop()

    async def _waiting(self) -> list[tuple[TP, int]]:
        """Return the partitions with waiting events, and their committed offsets. Empty while the
        broker is unavailable, because it may come back.

        Commits past offsets without a record. A transaction's marker and the records of an aborted
        transaction take offsets but are no events: they would count as lag wherever it is computed
        from offsets, such as in KEDA.
        """
        consumer: Any = self._app.consumer
        owned = [tp for tp in consumer.assignment() if tp.topic == self._topic]
        committed = {tp: self._committed.get(tp, consumer._committed_offset[tp]) for tp in owned}
        try:
            behind = await self._ends.lag(committed)
        except BusUnavailable:
            return []
        if self._health.is_recovering:  # a rebalance began meanwhile
            return []
        set_lag(behind, self._app.conf.id, [self._topic], self._metrics)
        for tp, offset in committed.items():
            after = self._ends.end_of_empty(tp, offset or 0)
            if after > max(offset or 0, self._handled_offsets.get(tp, 0)):
                self._handled_offsets[tp] = after
        await self.commit()
        return [(tp, committed[tp] or 0) for tp in behind]

    async def _on_revoked(self, *args: Any, **kwargs: Any) -> None:
        self._health.mark_recovering()

    async def _on_assigned(self, *args: Any, **kwargs: Any) -> None:
        self._handled_offsets.clear()
        self._committed.clear()
        if not self._seeks_back:
            self._seeks_back = True
            self._seek_back_where_nothing_is_committed()

    def _seek_back_where_nothing_is_committed(self) -> None:
        """Make Faust seek to the beginning of partitions that have no committed offset.

        Faust discards what its fetcher has read before a rebalance is complete, and relies on
        `seek_to_committed` to read it again. The implementation for aiokafka does not move a
        partition without a commit: its first events would be skipped, and later offsets committed.
        """
        consumer: Any = self._app.consumer
        seek_to_committed = consumer.seek_to_committed

        async def seek() -> Mapping[TP, int | None]:
            committed: Mapping[TP, int | None] = await seek_to_committed()
            if never := [
                tp for tp, offset in committed.items() if tp.topic == self._topic and not offset
            ]:
                await consumer._thread.seek_to_beginning(*never)
            return committed

        consumer.seek_to_committed = seek

    async def _on_rebalance_complete(self, *args: Any, **kwargs: Any) -> None:
        # Next, Faust seeks to the committed offsets, empties the queues of the streams, and
        # resumes the flow. Records fetched between the first two steps would be lost, and later
        # offsets committed, so nothing is read until the flow resumes.
        self._app.consumer.stop_flow()


async def run_app(app: faust.App, commits: OffsetCommitter, log: Log) -> None:
    """Run an app until SIGTERM or SIGINT.

    Raises the error that made it fail; unfinished events are not committed then.
    """
    # It warns above 100 messages in flight; `OffsetCommitter` bounds them.
    logging.getLogger("faust.transport.producer").setLevel(logging.ERROR)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    starting = asyncio.create_task(app.start(), name="start")
    running: set[asyncio.Task[Any]] = {
        asyncio.create_task(stop.wait()),
        asyncio.create_task(app._crashed.wait()),
        asyncio.create_task(commits.run()),
        asyncio.create_task(commits.watch_progress()),
    }
    try:
        finished, _ = await asyncio.wait({starting, *running}, return_when=asyncio.FIRST_COMPLETED)
        if finished == {starting} and starting.exception() is None:
            log.info("started", group=app.conf.id)
            finished, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in finished:
            task.result()
        if app.crash_reason is not None:
            raise BusUnavailable(f"Faust stopped: {app.crash_reason!r}") from app.crash_reason
        log.info("stopping")
        await commits.commit()
    finally:
        for task in (starting, *running):
            task.cancel()
        await app.stop()
