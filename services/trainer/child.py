"""The training process: `python -m services.trainer.child`. Requests come on stdin, replies go to stdout, everything else to stderr.

The base stays loaded between requests. When stdin closes, its parent is gone and the process ends at once, in whatever it is doing.
"""

import argparse
import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import BinaryIO

import torch
import transformers

from services.trainer.base_model import BaseModel, learning, load_base, save_adapter, wearing
from services.trainer.evaluation import answer_greedily, score
from services.trainer.failures import RunFailed
from services.trainer.protocol import REQUEST, Answer, Answered, Counted, Load, Loaded, Refused, Reply, Request, Score, Scored, Train
from services.trainer.recipe import train
from services.trainer.tokens import encode, encode_prompt


class Child:
    """Answers requests one by one."""

    def __init__(self, replies: BinaryIO) -> None:
        self._replies = replies
        self._base: BaseModel | None = None
        self._loaded: Load | None = None

    def handle(self, request: Request) -> None:
        try:
            self._reply(self._result(request))
        except RunFailed as failure:
            self._reply(Refused(reason=failure.reason, advice=failure.advice))

    def _result(self, request: Request) -> Reply:
        match request:
            case Load():
                return self._load(request)
            case Train():
                return self._train(request)
            case Score():
                return self._score(request)
            case Answer():
                return self._answer(request)

    def _load(self, request: Load) -> Reply:
        if request != self._loaded:
            self._base, self._loaded = None, None  # the old one's memory is free before the new one takes its own
            try:
                self._base = load_base(str(request.base), request.precision, request.quantisation)
            except OSError as error:
                raise RunFailed(
                    f"the base cannot be loaded: {error}", "check base.training in the model file, and RATCHET_BASES"
                ) from error
            self._loaded = request
        return Loaded()

    def _train(self, request: Train) -> Reply:
        base = self._held()
        examples = [encode(base.vocabulary, sample, request.configuration.max_tokens) for sample in request.examples]
        torch.manual_seed(request.configuration.seed)  # fresh LoRA weights are drawn before the recipe begins
        with learning(base.train, request.configuration, request.parent) as model:
            trained = train(model, examples, request.configuration, base.device, self._reply)
            save_adapter(model, request.base_name, request.out)
        return trained

    def _score(self, request: Score) -> Reply:
        base = self._held()
        examples = [encode(base.vocabulary, sample, request.max_tokens) for sample in request.samples]
        with wearing(base.judge, request.adapter) as model:
            scores = score(model, examples, base.device, self._count(len(examples)))
        return Scored(scores=tuple(scores))

    def _answer(self, request: Answer) -> Reply:
        base = self._held()
        prompts = [encode_prompt(base.vocabulary, messages, request.max_tokens) for messages in request.prompts]
        with wearing(base.judge, request.adapter) as model:
            answers = answer_greedily(model, base.vocabulary, prompts, request.max_new_tokens, base.device, self._count(len(prompts)))
        return Answered(answers=tuple(answers))

    def _count(self, total: int) -> Callable[[int], None]:
        return lambda done: self._reply(Counted(done=done, total=total))

    def _held(self) -> BaseModel:
        if self._base is None:
            raise RunFailed("no base is loaded", "this is a fault of the trainer: it asks for a base first")
        return self._base

    def _reply(self, reply: Reply) -> None:
        self._replies.write(reply.model_dump_json().encode() + b"\n")
        self._replies.flush()


def main() -> None:
    parser = argparse.ArgumentParser(prog="services.trainer.child", description=__doc__)
    parser.add_argument("--threads", type=int, default=0, help="cores to use; 0 is all")
    threads = parser.parse_args().threads
    if threads:
        torch.set_num_threads(threads)
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # the library has no types
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print goes to stderr, so that stdout holds replies only
    child = Child(replies)
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    while True:
        child.handle(REQUEST.validate_json(requests.get()))


def _listen(requests: "queue.SimpleQueue[bytes]") -> None:
    for line in sys.stdin.buffer:
        requests.put(line)
    os._exit(0)


if __name__ == "__main__":
    main()
