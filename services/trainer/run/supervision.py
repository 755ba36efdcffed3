"""Pausing a run for a rebalance or a shutdown, so that it resumes here or on its next owner; ending
a run that an operator cancels.

Only training saves a checkpoint; all other steps are cheap to repeat.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from services.trainer.worker.client import TrainingProcess
from shared.errors import PartitionLost

OwnershipCheck = Callable[[], Awaitable[bool]]


class RunSupervisor:
    """Runs one batch at a time. Rebalances and shutdowns interrupt it concurrently."""

    def __init__(self, process: TrainingProcess) -> None:
        self._process = process
        self._work: asyncio.Task[None] | None = None
        self._is_owner: OwnershipCheck | None = None
        self._is_lost = False
        self._suspended = asyncio.Event()
        self._may_continue = asyncio.Event()
        self._may_continue.set()

    async def run(
        self,
        work: Coroutine[Any, Any, None],
        is_owner: OwnershipCheck,
        cancellation: Coroutine[Any, Any, None],
    ) -> None:
        """Do the work of a run until its end, or until `cancellation` returns; training then saves
        a checkpoint. Raises the errors of both, and PartitionLost if another worker owns the run
        before its end.
        """
        self._work, self._is_owner, self._is_lost = asyncio.create_task(work), is_owner, False
        self._suspended.clear()
        watching = asyncio.create_task(self._end_after(cancellation, self._work))
        try:
            await self._work
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current and current.cancelling():
                raise
            if self._is_lost:
                raise PartitionLost("a rebalance assigned the run to another worker") from None
            # The watching task cancelled the work: after a cancellation, or with an error.
            await watching
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            self._suspended.set()  # a pause that waits for the checkpoint ends with the work
            self._work = self._is_owner = None

    async def _end_after(
        self, cancellation: Coroutine[Any, Any, None], work: asyncio.Task[None]
    ) -> None:
        """End the work once the run is cancelled. Only training has something to save: the
        work ends when that is done.
        """
        is_saved = False
        try:
            await cancellation
            is_saved = await self._process.interrupt()
        finally:
            if not is_saved:
                work.cancel()

    async def pause(self, seconds: float) -> bool:
        """Stop training. Returns when the checkpoint is uploaded for the next owner, when there is
        nothing to save, or, with False, after `seconds`.
        """
        self._may_continue.clear()
        if self._work is None:
            return True
        try:
            async with asyncio.timeout(seconds):
                if await self._process.interrupt():
                    await self._suspended.wait()
        except TimeoutError:
            return False
        return True

    async def suspend(self) -> None:
        """Called by the work after it has uploaded its checkpoint: wait for permission to continue
        here, or be cancelled. Returns at once if the pause is already over, because it timed out
        before the checkpoint.
        """
        self._suspended.set()
        await self._may_continue.wait()
        self._suspended.clear()

    async def after_rebalance(self) -> None:
        """Continue the run, or cancel it if another worker owns it now."""
        if self._work is not None and self._is_owner is not None and not await self._is_owner():
            self._is_lost = True
            self._work.cancel()
        self._may_continue.set()
