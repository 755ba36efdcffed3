"""Entry point of the training process: `python -m services.trainer.worker.training_process`.

Reads requests from stdin and writes replies to stdout and everything else to stderr. The base
stays loaded between requests. When stdin closes, the parent is gone, and the process exits at once,
whatever it is doing. Stop requests use the same pipe: stdin is read while a request is executed.
"""

import argparse
import os
import queue
import sys
import threading

import torch
import transformers

from services.trainer.protocol import REQUEST, STOP
from services.trainer.settings import TrainingProcessSettings
from services.trainer.worker.request_handler import RequestHandler
from shared.config.settings import read_settings
from shared.failpoints import arm
from shared.logs import configure

PendingRequest = tuple[bytes, threading.Event]
"""The line of a request, and an event that is set to stop it."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="services.trainer.worker.training_process", description=__doc__
    )
    parser.add_argument("--threads", type=int, default=0, help="cores to use; 0 is all")
    parser.add_argument(
        "--memory-limit",
        type=int,
        default=None,
        help="maximum memory for training in bytes; default: all",
    )
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers has no types
    settings = read_settings(TrainingProcessSettings)
    arm(settings.failpoints, configure("trainer-child", settings.log_level, settings.log_format))
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # libraries that print write to stderr; stdout has replies only
    handler = RequestHandler(replies, arguments.memory_limit)
    requests: queue.SimpleQueue[PendingRequest] = queue.SimpleQueue()
    threading.Thread(target=_read_requests, args=(requests,), daemon=True).start()
    while True:
        line, stop = requests.get()
        handler.handle(REQUEST.validate_json(line), stop)


def _read_requests(requests: "queue.SimpleQueue[PendingRequest]") -> None:
    """Queue requests; a stop applies to the request before it, even if that has not started yet."""
    stop = threading.Event()
    for line in sys.stdin.buffer:
        if line.strip() == STOP:
            stop.set()
        else:
            stop = threading.Event()
            requests.put((line, stop))
    os._exit(0)


if __name__ == "__main__":
    main()
