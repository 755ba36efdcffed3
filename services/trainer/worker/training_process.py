"""The training process: `python -m services.trainer.worker.training_process`. Requests come on stdin, replies
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

from services.trainer.data.tokenization import EncodedExample, Vocabulary, encode, encode_prompt
from services.trainer.data.training_set import PreferencePair, Sample
from services.trainer.errors import RunFailed
from services.trainer.machine.device import best_precision, local_device, training_memory
from services.trainer.machine.memory import BatchTokens, estimate_needs, memory_refusal
from services.trainer.protocol import (
    REQUEST,
    STOP,
    EstimateMemory,
    EvaluationProgress,
    Generate,
    Generated,
    GreedyAnswer,
    Load,
    Loaded,
    MemoryEstimate,
    Messages,
    Reply,
    Request,
    RequestRefused,
    Score,
    Scores,
    Stopped,
    Train,
)
from services.trainer.settings import ChildSettings
from services.trainer.training.base_model import (
    LoadedBase,
    load_base,
    load_tokenizer,
    save_adapter,
    trainable_adapter,
    with_adapter,
)
from services.trainer.training.base_shape import read_shape
from services.trainer.training.checkpoints import Checkpoints
from services.trainer.training.preferences import EncodedPair, JudgedAnswer
from services.trainer.training.recipe import TrainingInterrupted, train
from services.trainer.training.scoring import generate_greedily, score
from services.trainer.worker.resource_exhaustion import (
    FREE_DISK_SPACE,
    OUT_OF_MEMORY,
    is_disk_full,
    is_out_of_memory,
)
from shared.config.settings import read_settings
from shared.config.training import TrainingConfig
from shared.failpoints import arm, reach_in_thread
from shared.identity import digest_of
from shared.logs import configure

CHECK_THE_BASE = "check base.training in the model file, and RATCHET_BASES"

PendingRequest = tuple[bytes, threading.Event]
"""The line of a request, and whether it was told to stop."""


class RequestHandler:
    """Answers requests one by one. `memory_limit` is the most that training may take, in bytes;
    None for all that there is.
    """

    def __init__(self, replies: BinaryIO, memory_limit: int | None = None) -> None:
        self._replies = replies
        self._memory_limit = memory_limit
        self._base: LoadedBase | None = None
        self._loaded: Load | None = None

    def handle(self, request: Request, stop: threading.Event) -> None:
        """`stop` may be set while the request is in hand."""
        try:
            self._reply(self._dispatch(request, stop))
        except RunFailed as failure:
            self._reply(RequestRefused(reason=failure.reason, advice=failure.advice))
        except Exception as error:
            if is_out_of_memory(error):
                # Another process begins with all of the memory; what this one holds may be in
                # pieces.
                logging.getLogger("ratchet.trainer").exception("out of memory")
                os._exit(OUT_OF_MEMORY)
            if not is_disk_full(error):
                raise
            self._reply(
                RequestRefused(
                    reason=f"the disk took no more of what the run writes: {error}",
                    advice=FREE_DISK_SPACE,
                )
            )
        finally:
            if isinstance(request, Load | Train):
                _free_device()

    def _dispatch(self, request: Request, stop: threading.Event) -> Reply:
        match request:
            case Load():
                return self._load(request)
            case EstimateMemory():
                return self._estimate_memory(request)
            case Train():
                return self._train(request, stop)
            case Score():
                return self._score(request)
            case Generate():
                return self._generate(request)

    def _load(self, request: Load) -> Reply:
        if request != self._loaded:
            self._base, self._loaded = None, None
            _free_device()  # the old one's memory is free before the new one takes its own
            self._require_memory(request)
            try:
                self._base = load_base(str(request.base), request.precision, request.quantisation)
            except OSError as error:
                raise RunFailed(f"the base cannot be loaded: {error}", CHECK_THE_BASE) from error
            self._loaded = request
        return Loaded()

    def _require_memory(self, request: Load) -> None:
        """Refuse a base that leaves no room for the shortest of runs."""
        least = TrainingConfig.model_validate(
            {"precision": request.precision, "quantisation": request.quantisation, "batch_size": 1}
        )
        self._required_bytes(request.base, least, [(16, 1)])

    def _estimate_memory(self, request: EstimateMemory) -> Reply:
        max_tokens = request.configuration.max_tokens
        vocabulary = self._vocabulary(request.base)
        encoded = [encode(vocabulary, sample, max_tokens) for sample in request.examples]
        lengths = [(len(example.ids), example.answer_tokens) for example in encoded]
        return MemoryEstimate(
            needed=self._required_bytes(request.base, request.configuration, lengths),
            limit=training_memory(local_device(), self._memory_limit),
        )

    def _required_bytes(
        self, base: Path, config: TrainingConfig, lengths: Sequence[tuple[int, int]]
    ) -> int | None:
        device = local_device()
        shape, precision, limit = (
            read_shape(base),
            best_precision(device),
            training_memory(device, self._memory_limit),
        )
        if shape is None:
            return None
        if told := memory_refusal(shape, config, precision, lengths, limit):
            raise RunFailed(*told)
        return estimate_needs(
            shape,
            config,
            precision,
            BatchTokens.largest(lengths, config.batch_size, config.max_tokens),
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
            raise RunFailed(f"the base cannot be loaded: {error}", CHECK_THE_BASE) from error

    def _train(self, request: Train, stop: threading.Event) -> Reply:
        base, config = self._loaded_base(), request.configuration
        encoded = self._encode(request.examples, config.max_tokens)
        judged = [
            JudgedAnswer(example, True)
            for example in self._encode(request.desirable, config.max_tokens)
        ]
        judged += [
            JudgedAnswer(example, False)
            for example in self._encode(request.undesirable, config.max_tokens)
        ]
        checkpoints = Checkpoints(request.checkpoints, _run_key(request))
        torch.manual_seed(config.seed)  # fresh LoRA weights are drawn before the recipe begins
        try:
            with trainable_adapter(base.train_model, config, request.parent) as model:
                trained = train(
                    model,
                    encoded,
                    config,
                    base.device,
                    self._reply,
                    pairs=self._encode_pairs(request.pairs, config.max_tokens),
                    judged=judged,
                    checkpoints=checkpoints,
                    should_stop=stop.is_set,
                )
                save_adapter(model, request.base_name, request.out)
        except TrainingInterrupted as interrupted:
            return Stopped(step=interrupted.step)
        except OSError as error:
            raise RunFailed(
                f"a file of the run cannot be read or written: {error}",
                "make room where RATCHET_WORK lies",
            ) from error
        reach_in_thread("trainer.child_written")
        return trained

    def _encode(self, samples: Sequence[Sample], max_tokens: int) -> list[EncodedExample]:
        return [encode(self._loaded_base().vocabulary, sample, max_tokens) for sample in samples]

    def _encode_pairs(self, pairs: Sequence[PreferencePair], max_tokens: int) -> list[EncodedPair]:
        chosen = self._encode(
            [Sample(messages=pair.messages, answer=pair.answer) for pair in pairs], max_tokens
        )
        rejected = self._encode(
            [Sample(messages=pair.messages, answer=pair.rejected) for pair in pairs], max_tokens
        )
        return [EncodedPair(*both) for both in zip(chosen, rejected, strict=True)]

    def _score(self, request: Score) -> Reply:
        base = self._loaded_base()
        examples = self._encode(request.samples, request.max_tokens)
        with with_adapter(base.eval_model, request.adapter) as model:
            scores = score(model, examples, base.device, self._progress_reporter(len(examples)))
        return Scores(scores=tuple(scores))

    def _generate(self, request: Generate) -> Reply:
        base = self._loaded_base()
        alike = (
            base.generation_model is base.eval_model
        )  # then all are answered together, and what is both a probe and a prompt once
        exact = self._generate_answers(
            base.eval_model, [*request.probes, *(request.prompts if alike else ())], request
        )
        quick = (
            exact
            if alike
            else self._generate_answers(base.generation_model, request.prompts, request)
        )
        return Generated(
            probes=tuple(exact[each] for each in request.probes),
            prompts=tuple(quick[each] for each in request.prompts),
        )

    def _generate_answers(
        self, model: Any, asked: Sequence[Messages], request: Generate
    ) -> dict[Messages, GreedyAnswer]:
        if not asked:
            return {}
        base, different = self._loaded_base(), list(dict.fromkeys(asked))
        prompts = [
            encode_prompt(base.vocabulary, messages, request.max_tokens) for messages in different
        ]
        with with_adapter(model, request.adapter) as dressed:
            answers = generate_greedily(
                dressed,
                base.vocabulary,
                prompts,
                request.max_new_tokens,
                base.device,
                self._progress_reporter(len(prompts)),
            )
        return dict(zip(different, answers, strict=True))

    def _progress_reporter(self, total: int) -> Callable[[int], None]:
        return lambda done: self._reply(EvaluationProgress(done=done, total=total))

    def _loaded_base(self) -> LoadedBase:
        if self._base is None:
            raise RunFailed(
                "no base is loaded", "this is a fault of the trainer: it asks for a base first"
            )
        return self._base

    def _reply(self, reply: Reply) -> None:
        self._replies.write(reply.model_dump_json().encode() + b"\n")
        self._replies.flush()


def _run_key(request: Train) -> str:
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
    parser = argparse.ArgumentParser(
        prog="services.trainer.worker.training_process", description=__doc__
    )
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
    settings = read_settings(ChildSettings)
    arm(settings.failpoints, configure("trainer-child", settings.log_level, settings.log_format))
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print goes to stderr, so that stdout holds replies only
    child = RequestHandler(replies, told.memory_limit)
    requests: queue.SimpleQueue[PendingRequest] = queue.SimpleQueue()
    threading.Thread(target=_read_requests, args=(requests,), daemon=True).start()
    while True:
        line, stop = requests.get()
        child.handle(REQUEST.validate_json(line), stop)


def _read_requests(requests: "queue.SimpleQueue[PendingRequest]") -> None:
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
