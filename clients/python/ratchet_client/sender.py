"""From the buffer to Kafka: straight while all goes well, by way of the spool while it does not.

buffer ──▶ Kafka                the spool is empty, and Kafka has the events in time
buffer ──▶ spool ──▶ Kafka      otherwise, until the spool is empty again; so events stay in order
"""

import asyncio
import logging

from ratchet_client.buffer import Buffer
from ratchet_client.counters import Counters
from ratchet_client.event import FeedbackRecord
from ratchet_client.spool import Spool
from ratchet_client.transport import RecordRefused, Transport, TransportUnavailable

EVENTS, BYTES = 500, 512 << 10
"""What is sent at once."""
GATHER_SECONDS = 0.02
PATIENCE_SECONDS = 30.0
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0

log = logging.getLogger("ratchet_client")


class Sender:
    """What is in the buffer is in Kafka or in the spool within `safe_within` seconds and the time
    that the disk takes.

    Runs in one event loop of its own; it is told with `wake`, from there, that the buffer is no
    longer empty.
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
        # A batch may have to wait for the one before it.
        self._patience = max((safe_within - GATHER_SECONDS) / 2, 0.01)
        self._in_hand: list[FeedbackRecord] = []
        self._has_some = False
        self._woken = asyncio.Event()
        self._spooled = asyncio.Event()
        self._closing = asyncio.Event()
        self._asked_to_wait = 0.0

    @property
    def is_idle(self) -> bool:
        """Whether everything is sent or dropped; for any thread."""
        return not (len(self._buffer) or self._has_some or self._spool.size)

    def wake(self) -> None:
        self._woken.set()

    async def run(self) -> None:
        """Until `finish`."""
        self._spooled.set()
        draining = asyncio.create_task(self._drain())
        try:
            await self._pump()
        finally:
            draining.cancel()
            await asyncio.gather(draining, return_exceptions=True)

    async def finish(self, seconds: float) -> None:
        """Send what there is for so long, then leave it to the spool. Nothing may come into the
        buffer any more.
        """
        for _ in range(int(seconds / GATHER_SECONDS)):
            if self.is_idle:
                break
            await asyncio.sleep(GATHER_SECONDS)
        else:
            log.info(
                "not everything could be sent in %g s; %d bytes wait in the spool",
                seconds,
                self._spool.size,
            )
        self._closing.set()
        self.wake()

    async def _pump(self) -> None:
        """Take what is in the buffer, and see to it that it is safe."""
        while True:
            self._has_some = True
            self._in_hand = self._in_hand or self._buffer.take(EVENTS, BYTES)
            if not self._in_hand:
                self._has_some = False
                if self._closing.is_set():
                    return
                await self._woken.wait()
                self._woken.clear()
                await asyncio.sleep(0 if self._closing.is_set() else GATHER_SECONDS)
            elif (
                not self._spool.size
                and not self._closing.is_set()
                and await self._sent(self._in_hand, self._patience)
            ):
                self._in_hand = []
            else:
                await self._keep()

    async def _keep(self) -> None:
        """Put on the spool what is in hand. While the disk fails it stays in hand, and then the
        buffer fills.
        """
        try:
            kept = self._spool.append(self._in_hand)
        except OSError as error:
            log.error("the spool cannot be written: %s", error)
            if self._closing.is_set():
                self._counters.drop("closed", len(self._in_hand) + len(self._buffer))
                self._buffer.take(len(self._buffer), 1 << 62)
                self._in_hand = []
            await asyncio.sleep(FIRST_PAUSE)
            return
        self._counters.add("spooled", kept)
        if kept < len(self._in_hand):
            self._counters.drop("spool_full", len(self._in_hand) - kept)
            log.warning("the spool is full: %d events were dropped", len(self._in_hand) - kept)
        self._in_hand = []
        self._spooled.set()

    async def _drain(self) -> None:
        """Send what is on the spool, for ever."""
        pause = FIRST_PAUSE
        while True:
            await self._spooled.wait()
            try:
                records, entries = self._spool.peek(EVENTS, BYTES)
                if not entries:
                    self._spooled.clear()
                    continue
                unreadable = entries - len(records)
                if not records or await self._sent(records, PATIENCE_SECONDS):
                    if unreadable:
                        self._counters.drop("unreadable", unreadable)
                        log.error("%d lines of the spool were no events", unreadable)
                    self._spool.acknowledge(entries)
                    pause = FIRST_PAUSE
                    continue
            except OSError as error:
                log.error("the spool cannot be read: %s", error)
            await asyncio.sleep(max(pause, self._asked_to_wait))
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _sent(self, left: list[FeedbackRecord], seconds: float) -> bool:
        """Whether all of these were sent in so many seconds. What is refused is taken out of them."""
        self._asked_to_wait = 0.0
        try:
            async with asyncio.timeout(seconds):
                while left:
                    try:
                        await self._transport.send(left)
                    except RecordRefused as error:
                        refused = left.pop(error.index)
                        self._counters.drop("refused")
                        log.error("feedback %s was refused: %s", refused.event_id, error)
                    else:
                        self._counters.add("sent", len(left))
                        return True
        except TransportUnavailable as error:
            self._asked_to_wait = min(error.retry_after, 60.0)
            log.warning("%d events wait: %s", len(left), error)
        except TimeoutError:
            log.warning("%d events wait: not sent within %g s", len(left), seconds)
        except Exception:
            # Whatever a client library does, events are kept and this goes on.
            log.exception("%d events wait", len(left))
        return not left
