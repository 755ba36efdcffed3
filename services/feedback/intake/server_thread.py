"""A thread for the intake, with an event loop and a producer of its own: neither it nor the stream
waits for the other.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread

from services.feedback.intake.delivery import KafkaDelivery
from services.feedback.intake.http import Application, Connections

SHUTDOWN_SECONDS = 5.0

Stop = Callable[[], None]


def start_intake(app: Application, delivery: KafkaDelivery, host: str, port: int) -> Stop:
    """Serve from a thread; returns a function that stops it, once what is under way has come to its
    end. Raises OSError when the port is taken.
    """
    started: Future[Stop] = Future()
    thread = Thread(
        target=lambda: asyncio.run(_serve(app, delivery, host, port, started)),
        name="intake",
        daemon=True,
    )
    thread.start()
    finish = started.result()

    def stop() -> None:
        finish()
        thread.join()

    return stop


async def _serve(
    app: Application, delivery: KafkaDelivery, host: str, port: int, started: Future[Stop]
) -> None:
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
    connections = Connections(app)
    try:
        server = await asyncio.start_server(connections.serve, host, port)
    except OSError as error:
        started.set_exception(error)
        return
    async with delivery.connection():
        started.set_result(lambda: _soon(loop, stopping))
        await stopping.wait()
        server.close()
        await connections.answered(SHUTDOWN_SECONDS)


def _soon(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    loop.call_soon_threadsafe(event.set)
