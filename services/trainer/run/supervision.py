"""How the run in hand is stopped so that it can go on, here or at its next owner's: training leaves
a checkpoint, the rest is cheap.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from services.trainer.worker.client import TrainingProcess
from shared.errors import PartitionLost

OwnershipCheck = Callable[[], Awaitable[bool]]


class RunSupervisor:
    """Carries one run at a time. What a rebalance or a stop has to say about it comes from beside."""

    def __init__(self, child: TrainingProcess) -> None:
        self._child = child
        self._work: asyncio.Task[None] | None = None
        self._owned: OwnershipCheck | None = None
        self._lost = False
        self._parked = asyncio.Event()
        self._going_on = asyncio.Event()
        self._going_on.set()

    async def run(self, work: Coroutine[Any, Any, None], owned: OwnershipCheck) -> None:
        """Do the work of a run. Raises Forgone when the run has become another worker's before its
        end.
        """
        self._work, self._owned, self._lost = asyncio.create_task(work), owned, False
        self._parked.clear()
        try:
            await self._work
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if self._lost and not (current and current.cancelling()):
                raise PartitionLost("a rebalance has given the run to another worker") from None
            raise
        finally:
            self._work = self._owned = None

    async def pause(self, seconds: float) -> None:
        """Have the run in hand train no further. Returns when its checkpoint lies where the next
        owner finds it, when there is none to make, or after `seconds`.
        """
        self._going_on.clear()
        if self._work is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                if await self._child.interrupt():
                    await self._parked.wait()

    async def suspend(self) -> None:
        """For the work, once it has left its checkpoint: wait until it may go on here. Is cancelled
        when it may not. Does not wait when the pause is over already, which had waited too long for
        the checkpoint.
        """
        self._parked.set()
        await self._going_on.wait()
        self._parked.clear()

    async def after_rebalance(self) -> None:
        """A rebalance is over: the run goes on, or is forgone when it is another worker's now."""
        if self._work is not None and self._owned is not None and not await self._owned():
            self._lost = True
            self._work.cancel()
        self._going_on.set()
