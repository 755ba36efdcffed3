"""Sending of events: directly while the transport works, through the spool while it does not.

buffer ──▶ Kafka                the spool is empty and Kafka accepts the events in time
buffer ──▶ spool ──▶ Kafka      otherwise, until the spool is empty again; this preserves the order
"""

import asyncio
import logging

from ratchet_client.buffer import Buffer
from ratchet_client.counters import Counters
from ratchet_client.event import FeedbackRecord
from ratchet_client.spool import Spool
from ratchet_client.transport import RecordRefused, Transport, TransportUnavailable

MAX_EVENTS, MAX_BYTES = 500, 512 << 10
"""Maximum size of one send."""
LINGER_SECONDS = 0.02
SEND_TIMEOUT_SECONDS = 30.0
MIN_BACKOFF, MAX_BACKOFF = 0.2, 5.0

log = logging.getLogger("ratchet_client")


class Sender:
    """Moves buffered events to Kafka or to the spool within `safe_within` seconds plus the time of
    the disk.

    Runs in an event loop of its own; call `wake` from there when the buffer is no longer empty.
    """

    def __init__(
        self,
        buffer: Buffer,
        spool: Spool,
        transport: Transport,
        counters: Counters,
        safe_within: float,
    ) -> None:
        self._buffer = buffer
        self._spool = spool
        self._transport = transport
        self._counters = counters
        # A batch may have to wait for the previous one.
        self._send_timeout = max((safe_within - LINGER_SECONDS) / 2, 0.01)
        self._pending: list[FeedbackRecord] = []
        self._has_pending = False
        self._woken = asyncio.Event()
        self._spooled = asyncio.Event()
        self._closing = asyncio.Event()
        self._retry_after = 0.0

    @property
    def is_idle(self) -> bool:
        """True when every event is sent or dropped. Thread-safe."""
        return not (len(self._buffer) or self._has_pending or self._spool.size)

    def wake(self) -> None:
        self._woken.set()

    async def run(self) -> None:
        """Run until `finish`."""
        self._spooled.set()
        drain_task = asyncio.create_task(self._drain())
        try:
            await self._pump()
        finally:
            drain_task.cancel()
            await asyncio.gather(drain_task, return_exceptions=True)

    async def finish(self, seconds: float) -> None:
        """Send pending events for up to `seconds`, then leave the rest to the spool.

        No record may be added to the buffer from then on.
        """
        for _ in range(int(seconds / LINGER_SECONDS)):
            if self.is_idle:
                break
            await asyncio.sleep(LINGER_SECONDS)
        else:
            log.info(
                "could not send all events within %g s; %d bytes remain in the spool",
                seconds,
                self._spool.size,
            )
        self._closing.set()
        self.wake()

    async def _pump(self) -> None:
        """Take records from the buffer, and send or spool them."""
        while True:
            self._has_pending = True
            self._pending = self._pending or self._buffer.take(MAX_EVENTS, MAX_BYTES)
            if not self._pending:
                self._has_pending = False
                if self._closing.is_set():
                    return
                await self._woken.wait()
                self._woken.clear()
                await asyncio.sleep(0 if self._closing.is_set() else LINGER_SECONDS)
            elif (
                not self._spool.size
                and not self._closing.is_set()
                and await self._send(self._pending, self._send_timeout)
            ):
                self._pending = []
            else:
                await self._spool_pending()

    async def _spool_pending(self) -> None:
        """Spool the records being sent. While the disk fails they stay in memory, and the buffer
        fills.
        """
        try:
            spooled = self._spool.append(self._pending)
        except OSError as error:
            log.error("cannot write the spool: %s", error)
            if self._closing.is_set():
                self._counters.drop("closed", len(self._pending) + len(self._buffer))
                self._buffer.take(len(self._buffer), 1 << 62)
                self._pending = []
            await asyncio.sleep(MIN_BACKOFF)
            return
        self._counters.add("spooled", spooled)
        if spooled < len(self._pending):
            self._counters.drop("spool_full", len(self._pending) - spooled)
            log.warning("spool full: %d events dropped", len(self._pending) - spooled)
        self._pending = []
        self._spooled.set()

    async def _drain(self) -> None:
        """Send the spooled records, until cancelled."""
        pause = MIN_BACKOFF
        while True:
            await self._spooled.wait()
            try:
                records, entries = self._spool.peek(MAX_EVENTS, MAX_BYTES)
                if not entries:
                    self._spooled.clear()
                    continue
                unreadable = entries - len(records)
                if not records or await self._send(records, SEND_TIMEOUT_SECONDS):
                    if unreadable:
                        self._counters.drop("unreadable", unreadable)
                        log.error("%d unreadable lines in the spool", unreadable)
                    self._spool.acknowledge(entries)
                    pause = MIN_BACKOFF
                    continue
            except OSError as error:
                log.error("cannot read the spool: %s", error)
            await asyncio.sleep(max(pause, self._retry_after))
            pause = min(pause * 2, MAX_BACKOFF)

    async def _send(self, left: list[FeedbackRecord], seconds: float) -> bool:
        """Send `left` within `seconds`; return whether all were sent. Refused records are removed
        from `left`.
        """
        self._retry_after = 0.0
        try:
            async with asyncio.timeout(seconds):
                while left:
                    try:
                        await self._transport.send(left)
                    except RecordRefused as error:
                        refused = left.pop(error.index)
                        self._counters.drop("refused")
                        log.error("feedback %s refused: %s", refused.event_id, error)
                    else:
                        self._counters.add("sent", len(left))
                        return True
        except TransportUnavailable as error:
            self._retry_after = min(error.retry_after, 60.0)
            log.warning("%d events pending: %s", len(left), error)
        except TimeoutError:
            log.warning("%d events pending: not sent within %g s", len(left), seconds)
        except Exception:
            # Events must survive any error of a client library.
            log.exception("%d events pending", len(left))
        return not left
