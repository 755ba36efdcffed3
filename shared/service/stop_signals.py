"""Running of a service until the process gets a signal to stop."""

import asyncio
import signal
from collections.abc import Awaitable, Callable


async def serve_until_signal(serve: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run `serve` with an event that SIGINT and SIGTERM set."""
    stop_requested = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop_requested.set)
    await serve(stop_requested)
