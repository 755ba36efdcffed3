"""Stands beside the trainer for a training process that lives on a Ray cluster: `python -m
services.trainer.worker.ray_relay`.

Its standard input and output are those of that process, and it ends as that one ends. So Ray's
threads, signal handlers and connections stay out of the trainer's own process, and a cluster that
was away is met by a new relay. It takes a worker of the cluster for itself when it starts, and
gives it back when its standard input closes.
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

SHUTDOWN_SECONDS = 5
"""How long it may take to give a worker back: a cluster that is away is not waited for."""

NOT_INSTALLED = (
    "RATCHET_RAY_ADDRESS needs Ray, which is not installed; type: pip install 'ratchet[ray]'"
)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="services.trainer.worker.ray_relay",
        description=__doc__,
        epilog="Other options are the child's.",
    )
    parser.add_argument("--address", required=True, help="of the cluster, as ray.init takes it")
    parser.add_argument("--gpus", type=float, required=True, help="that the worker must have")
    parser.add_argument("--cores", type=int, required=True, help="that the worker must have")
    parser.add_argument("--work", type=Path, required=True, help="the trainer's work folder")
    parser.add_argument(
        "--base",
        type=Path,
        action="append",
        default=[],
        help="the folder of a base; more than once for more",
    )
    told, options = parser.parse_known_args()
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what Ray prints goes to stderr, so that stdout holds replies only
    os.environ.setdefault("RAY_COLOR_PREFIX", "0")  # noqa: TID251 (Ray's own: before what a worker logs; logs are read by programs too)
    try:
        import ray
    except ImportError:
        replies.write(_no_worker_line(WorkerUnavailable(NOT_INSTALLED, lasting=True)))
        replies.close()
        return
    worker = RayWorker(ray, told, options)
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read_requests, args=(worker, lines), daemon=True).start()
    status = _relay_replies(worker, lines, replies)
    leaving = threading.Thread(target=worker.release, daemon=True)
    leaving.start()
    leaving.join(SHUTDOWN_SECONDS)
    _exit_like(status)


def _relay_replies(worker: RayWorker, lines: "queue.SimpleQueue[bytes]", replies: BinaryIO) -> int:
    """The exit status of the training process, once it has ended."""
    try:
        worker.place()
        threading.Thread(target=_relay_requests, args=(worker, lines), daemon=True).start()
        while said := worker.read():
            replies.write(said)
            replies.flush()
        return worker.status()
    except WorkerUnavailable as refusal:
        replies.write(_no_worker_line(refusal))
        replies.flush()
        return 1
    except Exception as error:
        if not worker.released:
            print(
                f"the Ray worker is lost: {' '.join(str(error).split())}",
                file=sys.stderr,
                flush=True,
            )
        return OUT_OF_MEMORY if _is_out_of_memory(error) else WORKER_LOST


def _read_requests(worker: RayWorker, lines: "queue.SimpleQueue[bytes]") -> None:
    """Until the parent is gone, or wants no more of it."""
    for line in sys.stdin.buffer:
        lines.put(line)
    worker.release()
    os._exit(0)


def _relay_requests(worker: RayWorker, lines: "queue.SimpleQueue[bytes]") -> None:
    # When the worker is lost, whoever reads from it says so.
    with suppress(Exception):
        while True:
            worker.write(lines.get())


def _is_out_of_memory(error: Exception) -> bool:
    """Ray ends a worker when its node runs out of memory; for an actor only the message says so."""
    return "OutOfMemory" in type(error).__name__ or "OUT_OF_MEMORY" in str(error)


def _no_worker_line(refusal: WorkerUnavailable) -> bytes:
    return (
        NoWorker(reason=str(refusal), permanent=refusal.permanent).model_dump_json().encode()
        + b"\n"
    )


def _exit_like(status: int) -> None:
    """End as the training process did, by its signal where it was one; without Ray's own farewell,
    which may wait for a cluster that is gone.
    """
    if status < 0:
        with suppress(OSError):  # a kill needs no more than to be sent
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


if __name__ == "__main__":
    main()
