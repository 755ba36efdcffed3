"""Runs the worker process of one training request."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from services.dataset.builder.build_order import MAX_LINE_BYTES, BuildMessage, BuildOrder
from shared.errors import CommandRefused, StorageUnavailable
from shared.events import BatchReady
from shared.python_command import module_command

_MODULE = "services.dataset.builder.worker"

ReportProgress = Callable[[str], Awaitable[None]]


class WorkerProcess:
    """Carries out orders, each in a new process with the settings of this one."""

    def __init__(self, seconds: float) -> None:
        """`seconds`: time limit of one order."""
        self._seconds = seconds

    async def build(self, order: BuildOrder, report_progress: ReportProgress) -> BatchReady:
        """Carry out an order and return the announcement of its batch. Raises CommandRefused for an
        order that cannot be carried out, StorageUnavailable. The process ends with the call.
        """
        process = await asyncio.create_subprocess_exec(
            *module_command(_MODULE),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=MAX_LINE_BYTES,
            start_new_session=True,  # Ctrl-C is for the builder alone
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            async with asyncio.timeout(self._seconds) as limit:
                with suppress(ConnectionError):  # it has ended; its output has the reason
                    process.stdin.write(order.model_dump_json().encode() + b"\n")
                    await process.stdin.drain()
                async for line in process.stdout:
                    message = BuildMessage.model_validate_json(line)
                    if message.batch is not None:
                        return message.batch
                    if message.refused is not None:
                        raise CommandRefused(message.refused)
                    if message.unavailable is not None:
                        raise StorageUnavailable(message.unavailable)
                    if message.progress is not None:
                        await report_progress(message.progress)
                status = await process.wait()
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise CommandRefused(
                f"takes longer than {self._seconds / 60:g} minutes to import; divide the file, or "
                "raise RATCHET_BUILD_MINUTES"
            ) from error
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        raise CommandRefused(
            f"ended the process that imports it (status {status}), probably for lack of memory; "
            "divide the file, or raise RATCHET_BUILD_MEMORY_MIB"
        )
