"""The training process: `python -m services.trainer.worker.child`. Requests come on stdin, replies
go to stdout, everything else to stderr.

The base stays loaded between requests. When stdin closes, its parent is gone and the process ends
at once, in whatever it is doing. What stops a training comes the same way: stdin is read while a
request is in hand.
"""

import argparse
import gc
import logging
import os
import queue
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
import transformers

from services.trainer.data.tokenization import Encoded, Vocabulary, encode, encode_prompt
from services.trainer.data.training_set import Pair, Sample
from services.trainer.errors import RunFailed
from services.trainer.machine.device import best_precision, device_here, memory_for
from services.trainer.machine.memory import Work, need, refusal
from services.trainer.protocol import (
    REQUEST,
    STOP,
    Answer,
    Answered,
    Counted,
    Fit,
    Fits,
    Greedy,
    Load,
    Loaded,
    Messages,
    Refused,
    Reply,
    Request,
    Score,
    Scored,
    Stopped,
    Train,
)
from services.trainer.settings import ChildSettings
from services.trainer.training.base_model import (
    BaseModel,
    learning,
    load_base,
    load_tokenizer,
    save_adapter,
    wearing,
)
from services.trainer.training.base_shape import read_shape
from services.trainer.training.checkpoints import Checkpoints
from services.trainer.training.preferences import EncodedPair, Judged
from services.trainer.training.recipe import Interrupted, train
from services.trainer.training.scoring import answer_greedily, score
from services.trainer.worker.resource_exhaustion import (
    FREE_THE_DISK,
    OUT_OF_MEMORY,
    is_disk_full,
    is_out_of_memory,
)
from shared.config.settings import read
from shared.config.training import TrainingConfig
from shared.failpoints import arm, reach_in_thread
from shared.identity import digest_of
from shared.logs import configure

LOOK_AT_THE_BASE = "check base.training in the model file, and RATCHET_BASES"

Asked = tuple[bytes, threading.Event]
"""The line of a request, and whether it was told to stop."""


class Child:
    """Answers requests one by one. `memory_limit` is the most that training may take, in bytes;
    None for all that there is.
    """

    def __init__(self, replies: BinaryIO, memory_limit: int | None = None) -> None:
        self._replies = replies
        self._memory_limit = memory_limit
        self._base: BaseModel | None = None
        self._loaded: Load | None = None

    def handle(self, request: Request, stop: threading.Event) -> None:
        """`stop` may be set while the request is in hand."""
        try:
            self._reply(self._result(request, stop))
        except RunFailed as failure:
            self._reply(Refused(reason=failure.reason, advice=failure.advice))
        except Exception as error:
            if is_out_of_memory(error):
                # Another process begins with all of the memory; what this one holds may be in
                # pieces.
                logging.getLogger("ratchet.trainer").exception("out of memory")
                os._exit(OUT_OF_MEMORY)
            if not is_disk_full(error):
                raise
            self._reply(
                Refused(
                    reason=f"the disk took no more of what the run writes: {error}",
                    advice=FREE_THE_DISK,
                )
            )
        finally:
            if isinstance(request, Load | Train):
                _free_device()

    def _result(self, request: Request, stop: threading.Event) -> Reply:
        match request:
            case Load():
                return self._load(request)
            case Fit():
                return self._fit(request)
            case Train():
                return self._train(request, stop)
            case Score():
                return self._score(request)
            case Answer():
                return self._answer(request)

    def _load(self, request: Load) -> Reply:
        if request != self._loaded:
            self._base, self._loaded = None, None
            _free_device()  # the old one's memory is free before the new one takes its own
            self._require_room(request)
            try:
                self._base = load_base(str(request.base), request.precision, request.quantisation)
            except OSError as error:
                raise RunFailed(f"the base cannot be loaded: {error}", LOOK_AT_THE_BASE) from error
            self._loaded = request
        return Loaded()

    def _require_room(self, request: Load) -> None:
        """Refuse a base that leaves no room for the shortest of runs."""
        least = TrainingConfig.model_validate(
            {"precision": request.precision, "quantisation": request.quantisation, "batch_size": 1}
        )
        self._need(request.base, least, [(16, 1)])

    def _fit(self, request: Fit) -> Reply:
        max_tokens = request.configuration.max_tokens
        vocabulary = self._vocabulary(request.base)
        encoded = [encode(vocabulary, sample, max_tokens) for sample in request.examples]
        lengths = [(len(example.ids), example.answer_tokens) for example in encoded]
        return Fits(
            needed=self._need(request.base, request.configuration, lengths),
            limit=memory_for(device_here(), self._memory_limit),
        )

    def _need(
        self, base: Path, config: TrainingConfig, lengths: Sequence[tuple[int, int]]
    ) -> int | None:
        device = device_here()
        shape, precision, limit = (
            read_shape(base),
            best_precision(device),
            memory_for(device, self._memory_limit),
        )
        if shape is None:
            return None
        if told := refusal(shape, config, precision, lengths, limit):
            raise RunFailed(*told)
        return need(
            shape, config, precision, Work.of(lengths, config.batch_size, config.max_tokens)
        ).total

    def _vocabulary(self, base: Path) -> Vocabulary:
        """That of the base in memory where it is this one; else one that knows no end of a turn,
        which lengths do not depend on.
        """
        if self._base is not None and self._loaded is not None and self._loaded.base == base:
            return self._base.vocabulary
        try:
            return Vocabulary(load_tokenizer(str(base)), (0,))
        except OSError as error:
            raise RunFailed(f"the base cannot be loaded: {error}", LOOK_AT_THE_BASE) from error

    def _train(self, request: Train, stop: threading.Event) -> Reply:
        base, config = self._held(), request.configuration
        encoded = self._encode(request.examples, config.max_tokens)
        judged = [
            Judged(example, True) for example in self._encode(request.desirable, config.max_tokens)
        ]
        judged += [
            Judged(example, False)
            for example in self._encode(request.undesirable, config.max_tokens)
        ]
        checkpoints = Checkpoints(request.checkpoints, _lessons_of(request))
        torch.manual_seed(config.seed)  # fresh LoRA weights are drawn before the recipe begins
        try:
            with learning(base.train, config, request.parent) as model:
                trained = train(
                    model,
                    encoded,
                    config,
                    base.device,
                    self._reply,
                    pairs=self._encode_pairs(request.pairs, config.max_tokens),
                    judged=judged,
                    checkpoints=checkpoints,
                    stopping=stop.is_set,
                )
                save_adapter(model, request.base_name, request.out)
        except Interrupted as interrupted:
            return Stopped(step=interrupted.step)
        except OSError as error:
            raise RunFailed(
                f"a file of the run cannot be read or written: {error}",
                "make room where RATCHET_WORK lies",
            ) from error
        reach_in_thread("trainer.child_written")
        return trained

    def _encode(self, samples: Sequence[Sample], max_tokens: int) -> list[Encoded]:
        return [encode(self._held().vocabulary, sample, max_tokens) for sample in samples]

    def _encode_pairs(self, pairs: Sequence[Pair], max_tokens: int) -> list[EncodedPair]:
        chosen = self._encode(
            [Sample(messages=pair.messages, answer=pair.answer) for pair in pairs], max_tokens
        )
        rejected = self._encode(
            [Sample(messages=pair.messages, answer=pair.rejected) for pair in pairs], max_tokens
        )
        return [EncodedPair(*both) for both in zip(chosen, rejected, strict=True)]

    def _score(self, request: Score) -> Reply:
        base = self._held()
        examples = self._encode(request.samples, request.max_tokens)
        with wearing(base.judge, request.adapter) as model:
            scores = score(model, examples, base.device, self._count(len(examples)))
        return Scored(scores=tuple(scores))

    def _answer(self, request: Answer) -> Reply:
        base = self._held()
        alike = (
            base.speak is base.judge
        )  # then all are answered together, and what is both a probe and a prompt once
        exact = self._said_by(
            base.judge, [*request.probes, *(request.prompts if alike else ())], request
        )
        quick = exact if alike else self._said_by(base.speak, request.prompts, request)
        return Answered(
            probes=tuple(exact[each] for each in request.probes),
            prompts=tuple(quick[each] for each in request.prompts),
        )

    def _said_by(
        self, model: Any, asked: Sequence[Messages], request: Answer
    ) -> dict[Messages, Greedy]:
        if not asked:
            return {}
        base, different = self._held(), list(dict.fromkeys(asked))
        prompts = [
            encode_prompt(base.vocabulary, messages, request.max_tokens) for messages in different
        ]
        with wearing(model, request.adapter) as dressed:
            answers = answer_greedily(
                dressed,
                base.vocabulary,
                prompts,
                request.max_new_tokens,
                base.device,
                self._count(len(prompts)),
            )
        return dict(zip(different, answers, strict=True))

    def _count(self, total: int) -> Callable[[int], None]:
        return lambda done: self._reply(Counted(done=done, total=total))

    def _held(self) -> BaseModel:
        if self._base is None:
            raise RunFailed(
                "no base is loaded", "this is a fault of the trainer: it asks for a base first"
            )
        return self._base

    def _reply(self, reply: Reply) -> None:
        self._replies.write(reply.model_dump_json().encode() + b"\n")
        self._replies.flush()


def _lessons_of(request: Train) -> str:
    """What stands for all that a run learns from and how: the same for a request that is made
    again, on whatever disk.
    """
    parent = request.parent.name if request.parent else ""
    return digest_of(
        f"{request.model_dump_json(exclude={'parent', 'checkpoints', 'out'})}{parent}".encode()
    )


def _free_device() -> None:
    """Give back a GPU's memory that nothing needs any more, so that others may have it."""
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser(prog="services.trainer.worker.child", description=__doc__)
    parser.add_argument("--threads", type=int, default=0, help="cores to use; 0 is all")
    parser.add_argument(
        "--memory-limit",
        type=int,
        default=None,
        help="bytes that training may take; without it, all there are",
    )
    told = parser.parse_args()
    if told.threads:
        torch.set_num_threads(told.threads)
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # the library has no types
    settings = read(ChildSettings)
    arm(settings.failpoints, configure("trainer-child", settings.log_level, settings.log_format))
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print goes to stderr, so that stdout holds replies only
    child = Child(replies, told.memory_limit)
    requests: queue.SimpleQueue[Asked] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    while True:
        line, stop = requests.get()
        child.handle(REQUEST.validate_json(line), stop)


def _listen(requests: "queue.SimpleQueue[Asked]") -> None:
    """A stop is for the request before it, whether that is in hand already or not."""
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
