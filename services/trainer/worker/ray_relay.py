"""Local relay for a training process on a Ray cluster: `python -m
services.trainer.worker.ray_relay`.

Its standard input and output are those of the training process, and it exits with the same status.
This keeps Ray's threads, signal handlers and connections out of the trainer's own process; after a
lost connection a new relay reconnects. It acquires a worker of the cluster at start and releases it
when its standard input closes.
"""

import argparse
import os
import queue
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from services.trainer.protocol import NoWorker
from services.trainer.worker.ray_worker import RayWorker, WorkerUnavailable
from services.trainer.worker.resource_exhaustion import OUT_OF_MEMORY, WORKER_LOST
from shared.version import install_command

SHUTDOWN_SECONDS = 5
"""Time limit for releasing a worker; the relay does not wait for an unreachable cluster."""

NOT_INSTALLED = (
    f"RATCHET_RAY_ADDRESS requires Ray, which is not installed; run {install_command('ray')}"
)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="services.trainer.worker.ray_relay",
        description=__doc__,
        epilog="Other options are passed to the training process.",
    )
    parser.add_argument("--address", required=True, help="address of the cluster, as for ray.init")
    parser.add_argument("--gpus", type=float, required=True, help="GPUs that the worker must have")
    parser.add_argument("--cores", type=int, required=True, help="cores that the worker must have")
    parser.add_argument("--work", type=Path, required=True, help="the trainer's work folder")
    parser.add_argument(
        "--base",
        type=Path,
        action="append",
        default=[],
        help="folder of a base; repeatable",
    )
    arguments, options = parser.parse_known_args()
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # Ray prints to stderr; stdout has replies only
    # Ray adds a driver's current folder to the module search path of its workers: without this, a
    # package `services` of the user's would be imported there.
    os.chdir("/")
    os.environ.setdefault("RAY_COLOR_PREFIX", "0")  # noqa: TID251 (Ray's own variable: no colour codes in worker logs)
    try:
        import ray
    except ImportError:
        replies.write(_no_worker_line(WorkerUnavailable(NOT_INSTALLED, permanent=True)))
        replies.close()
        return
    worker = RayWorker(ray, arguments, options)
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read_requests, args=(worker, lines), daemon=True).start()
    status = _relay_replies(worker, lines, replies)
    releasing = threading.Thread(target=worker.release, daemon=True)
    releasing.start()
    releasing.join(SHUTDOWN_SECONDS)
    _exit_like(status)


def _relay_replies(worker: RayWorker, lines: "queue.SimpleQueue[bytes]", replies: BinaryIO) -> int:
    """Forward replies until the training process ends. Return its exit status."""
    try:
        worker.place()
        threading.Thread(target=_relay_requests, args=(worker, lines), daemon=True).start()
        while output := worker.read():
            replies.write(output)
            replies.flush()
        return worker.status()
    except WorkerUnavailable as error:
        replies.write(_no_worker_line(error))
        replies.flush()
        return 1
    except Exception as error:
        if not worker.released:
            print(
                f"the Ray worker was lost: {' '.join(str(error).split())}",
                file=sys.stderr,
                flush=True,
            )
        return OUT_OF_MEMORY if _is_out_of_memory(error) else WORKER_LOST


def _read_requests(worker: RayWorker, lines: "queue.SimpleQueue[bytes]") -> None:
    """Queue requests until the parent closes the pipe; then release the worker and exit."""
    for line in sys.stdin.buffer:
        lines.put(line)
    worker.release()
    os._exit(0)


def _relay_requests(worker: RayWorker, lines: "queue.SimpleQueue[bytes]") -> None:
    # A lost worker is reported by the reading side.
    with suppress(Exception):
        while True:
            worker.write(lines.get())


def _is_out_of_memory(error: Exception) -> bool:
    """Return True if Ray ended the worker because its node ran out of memory; for an actor only the
    message contains that.
    """
    return "OutOfMemory" in type(error).__name__ or "OUT_OF_MEMORY" in str(error)


def _no_worker_line(error: WorkerUnavailable) -> bytes:
    return NoWorker(reason=str(error), permanent=error.permanent).model_dump_json().encode() + b"\n"


def _exit_like(status: int) -> None:
    """Exit as the training process did, by its signal if there was one. Skips Ray's own shutdown,
    which may wait for a lost cluster.
    """
    if status < 0:
        with suppress(OSError):  # SIGKILL has no handler to reset
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


if __name__ == "__main__":
    main()
