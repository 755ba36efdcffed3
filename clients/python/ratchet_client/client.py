"""Public API. Recording validates, appends a line of JSON in memory, and returns; a thread does the
rest.
"""

import asyncio
import atexit
import hashlib
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, Self, Unpack

from ratchet_client.buffer import Buffer
from ratchet_client.counters import Counters, Counts
from ratchet_client.event import FeedbackFields, build_record
from ratchet_client.generations import Generation, Generations
from ratchet_client.http import HttpTransport
from ratchet_client.kafka import KafkaTransport
from ratchet_client.sender import Sender
from ratchet_client.spool import DiskSpool, MemorySpool, Spool
from ratchet_client.transport import Transport

SPOOL = Path("~/.local/state/ratchet-client")


class Client:
    """Takes feedback from any thread. Create one per process, after a fork; close it at the end."""

    def __init__(
        self,
        *,
        bootstrap_servers: str | None = None,
        url: str | None = None,
        token: str | None = None,
        topic: str = "feedback.received",
        kafka: Mapping[str, Any] | None = None,
        spool: str | Path | None = SPOOL,
        spool_bytes: int = 256 << 20,
        buffer_events: int = 10_000,
        buffer_bytes: int = 32 << 20,
        safe_within: float = 0.5,
        keep_answers: int = 10_000,
        keep_characters: int = 32 << 20,
    ) -> None:
        """Connect to Kafka or to the HTTP intake.

        Give either `bootstrap_servers` (with further settings of aiokafka's producer in `kafka`) or
        the `url` of the HTTP intake (with a `token`). Unsent events wait in the folder `spool`,
        which processes may share; with None they wait in memory. A recorded event is in Kafka or in
        the spool after `safe_within` seconds.

        Raises ValueError for conflicting arguments, OSError when the folder cannot be used.
        """
        transport = _transport(bootstrap_servers, url, token, topic, kafka or {})
        target = hashlib.sha256(f"{bootstrap_servers or url} {topic}".encode()).hexdigest()[:16]
        self._spool: Spool = (
            MemorySpool(spool_bytes)
            if spool is None
            else DiskSpool(Path(spool).expanduser() / target, spool_bytes)
        )
        self._buffer = Buffer(buffer_events, buffer_bytes)
        self._counters = Counters()
        self._generations = Generations(keep_answers, keep_characters)
        self._transport = transport
        self._sender = Sender(self._buffer, self._spool, transport, self._counters, safe_within)
        self._process = os.getpid()
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._run, name="ratchet-client", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def record_feedback(self, **feedback: Unpack[FeedbackFields]) -> str:
        """Record feedback and return its `event_id` immediately; never waits for a network or a
        disk.

        When the buffer is full the event is dropped and counted. Raises InvalidFeedback for
        feedback that Ratchet would refuse, RuntimeError when the client is closed or belongs to a
        parent process.
        """
        if self._closed or self._process != os.getpid():
            raise RuntimeError(
                "this client is closed"
                if self._closed
                else "this client belongs to the parent process; create a client after the fork"
            )
        record = build_record(self._generations.fill_in(feedback), datetime.now(UTC))  # noqa: TID251 (reads the clock)
        buffered = self._buffer.offer(record)
        if not buffered:
            self._counters.drop("buffer_full")
            return record.event_id
        self._counters.add("recorded")
        if buffered == 1:
            self._loop.call_soon_threadsafe(self._sender.wake)
        return record.event_id

    def keep(self, response_id: str, generation: Generation) -> None:
        """Store an answer, so that feedback may refer to it by `response_id` alone; `capture` calls
        it.
        """
        self._generations.keep(response_id, generation)

    @property
    def counts(self) -> Counts:
        """Counts of recorded, sent, spooled and dropped events so far."""
        return self._counters.counts(len(self._buffer), self._spool.size)

    def flush(self, seconds: float = 10.0) -> bool:
        """Wait until no event is pending; return False on timeout."""
        end = time.monotonic() + seconds  # noqa: TID251 (reads the clock)
        while not self._sender.is_idle:
            if time.monotonic() > end:  # noqa: TID251 (reads the clock)
                return False
            time.sleep(0.005)
        return True

    def close(self, seconds: float = 5.0) -> None:
        """Send pending events for up to `seconds`, then leave the rest in the spool.

        Without a spool on disk the rest is lost and counted.
        """
        if self._closed or self._process != os.getpid():
            return
        self._closed = True
        atexit.unregister(self.close)
        asyncio.run_coroutine_threadsafe(self._sender.finish(seconds), self._loop).result()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._work())

    async def _work(self) -> None:
        try:
            await self._sender.run()
        finally:
            if lost := self._spool.close():
                self._counters.drop("closed", lost)
            await self._transport.close()


class AsyncClient:
    """Client for asyncio: awaiting it never blocks the event loop, and recording does not even
    yield to it.
    """

    def __init__(self, **settings: Any) -> None:
        """Take the arguments of `Client`."""
        self.client = Client(**settings)

    async def record_feedback(self, **feedback: Unpack[FeedbackFields]) -> str:
        """See `Client.record_feedback`."""
        return self.client.record_feedback(**feedback)

    def keep(self, response_id: str, generation: Generation) -> None:
        """See `Client.keep`."""
        self.client.keep(response_id, generation)

    @property
    def counts(self) -> Counts:
        return self.client.counts

    async def flush(self, seconds: float = 10.0) -> bool:
        """See `Client.flush`."""
        return await asyncio.to_thread(self.client.flush, seconds)

    async def close(self, seconds: float = 5.0) -> None:
        """See `Client.close`."""
        await asyncio.to_thread(self.client.close, seconds)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


def _transport(
    bootstrap_servers: str | None,
    url: str | None,
    token: str | None,
    topic: str,
    kafka: Mapping[str, Any],
) -> Transport:
    if (bootstrap_servers is None) == (url is None):
        raise ValueError("expected either bootstrap_servers or url")
    if bootstrap_servers is not None:
        if token is not None:
            raise ValueError("token requires url; pass Kafka's security settings in `kafka`")
        return KafkaTransport(bootstrap_servers, topic, kafka)
    assert url is not None
    return HttpTransport(url, token)
