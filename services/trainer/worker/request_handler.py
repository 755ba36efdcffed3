"""Execution of requests in the training process: load, train, score and generate."""

import gc
import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import torch

from services.trainer.data.rendering import TemplateRefused
from services.trainer.data.tokenization import (
    EncodedExample,
    Vocabulary,
    encode,
    encode_prompt,
    is_exact,
)
from services.trainer.data.training_set import PreferencePair, Sample
from services.trainer.errors import RunFailed
from services.trainer.machine.device import best_precision, local_device, training_memory
from services.trainer.machine.memory import BatchTokens, estimate_needs
from services.trainer.machine.memory_fit import memory_refusal
from services.trainer.protocol import (
    CheckPrompts,
    DescribeDevice,
    DeviceDescribed,
    EstimateMemory,
    EvaluationProgress,
    Generate,
    Generated,
    Load,
    Loaded,
    MemoryEstimate,
    Messages,
    PromptsChecked,
    Reply,
    Request,
    Score,
    Scores,
    Stopped,
    Train,
)
from services.trainer.training.base_model import (
    LoadedBase,
    load_base,
    save_adapter,
    trainable_adapter,
    with_adapter,
)
from services.trainer.training.base_shape import read_shape
from services.trainer.training.base_tokenizer import load_vocabulary
from services.trainer.training.checkpoints import Checkpoints
from services.trainer.training.greedy_answers import greedy_answers
from services.trainer.training.preferences import EncodedPair, JudgedAnswer
from services.trainer.training.recipe import TrainingInterrupted, train
from services.trainer.training.scoring import score
from services.trainer.worker.refusals import refusal_of, refuse_unloadable
from services.trainer.worker.resource_exhaustion import (
    OUT_OF_MEMORY,
    is_out_of_memory,
)
from shared.config.template_variables import TemplateVariables
from shared.config.training import TrainingConfig
from shared.failpoints import reach_in_thread
from shared.identity import digest_of


class RequestHandler:
    """Executes requests one by one and writes replies.

    `memory_limit` is the maximum memory for training in bytes, None for all.
    """

    def __init__(self, replies: BinaryIO, memory_limit: int | None = None) -> None:
        self._replies = replies
        self._memory_limit = memory_limit
        self._base: LoadedBase | None = None
        self._loaded: Load | None = None

    def handle(self, request: Request, stop: threading.Event) -> None:
        """Execute a request; `stop` may be set meanwhile to stop training."""
        try:
            self._reply(self._dispatch(request, stop))
        except Exception as error:
            if is_out_of_memory(error):
                # A new process starts with all memory free; this one's heap may be fragmented.
                logging.getLogger("ratchet.trainer").exception("out of memory")
                os._exit(OUT_OF_MEMORY)
            refusal = refusal_of(error)
            if refusal is None:
                raise
            self._reply(refusal)
        finally:
            if isinstance(request, Load | Train):
                _free_device()

    def _dispatch(self, request: Request, stop: threading.Event) -> Reply:
        match request:
            case Load():
                return self._load(request)
            case EstimateMemory():
                return self._estimate_memory(request)
            case DescribeDevice():
                return self._describe_device()
            case CheckPrompts():
                return self._check_prompts(request)
            case Train():
                return self._train(request, stop)
            case Score():
                return self._score(request)
            case Generate():
                return self._generate(request)

    def _load(self, request: Load) -> Reply:
        if request != self._loaded:
            self._base, self._loaded = None, None
            _free_device()  # release the old base's memory before the new base needs it
            self._require_memory(request)
            with refuse_unloadable():
                self._base = load_base(
                    str(request.base), request.precision, request.quantisation, request.template
                )
            self._loaded = request
            for warning in self._base.vocabulary.warnings:
                logging.getLogger("ratchet.trainer").warning("base: %s", warning)
        return Loaded()

    def _require_memory(self, request: Load) -> None:
        """Refuse a base that leaves too little memory for the smallest run."""
        smallest = TrainingConfig.model_validate(
            {"precision": request.precision, "quantisation": request.quantisation, "batch_size": 1}
        )
        self._required_bytes(request.base, smallest, [(16, 1)])

    def _estimate_memory(self, request: EstimateMemory) -> Reply:
        max_tokens = request.configuration.max_tokens
        vocabulary = self._vocabulary(request.base, request.template)
        encoded = [encode(vocabulary, sample, max_tokens) for sample in request.examples]
        lengths = [(len(example.ids), example.answer_tokens) for example in encoded]
        return MemoryEstimate(
            needed=self._required_bytes(request.base, request.configuration, lengths),
            limit=training_memory(local_device(), self._memory_limit),
        )

    def _describe_device(self) -> Reply:
        device = local_device()
        return DeviceDescribed(
            device=device,
            precision=best_precision(device),
            memory=training_memory(device, self._memory_limit),
        )

    def _check_prompts(self, request: CheckPrompts) -> Reply:
        vocabulary = self._vocabulary(request.base, request.template)
        refused: dict[int, str] = {}
        inexact = []
        for index, messages in enumerate(request.prompts):
            try:
                if not is_exact(vocabulary, messages):
                    inexact.append(index)
            except TemplateRefused as refusal:
                refused[index] = str(refusal)
        return PromptsChecked(refused=refused, inexact=tuple(inexact))

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
        if refusal := memory_refusal(shape, config, precision, lengths, limit):
            raise RunFailed(*refusal)
        return estimate_needs(
            shape,
            config,
            precision,
            BatchTokens.largest(lengths, config.batch_size, config.max_tokens),
        ).total

    def _vocabulary(self, base: Path, template: TemplateVariables) -> Vocabulary:
        """Return the tokenizer of a base, which need not be loaded."""
        loaded = self._loaded
        if self._base is not None and loaded and (loaded.base, loaded.template) == (base, template):
            return self._base.vocabulary
        with refuse_unloadable():
            return load_vocabulary(str(base), template)

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
        torch.manual_seed(config.seed)  # fresh LoRA weights are drawn before the recipe starts
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
                "free disk space in the RATCHET_WORK folder",
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
        with with_adapter(base.eval_model, request.adapter, base.evaluation_cache) as model:
            scores = score(model, examples, base.device, self._progress_reporter(len(examples)))
        return Scores(scores=tuple(scores))

    def _generate(self, request: Generate) -> Reply:
        base = self._loaded_base()
        vocabulary = base.vocabulary

        def encoded(conversations: Sequence[Messages]) -> list[tuple[int, ...]]:
            return [
                encode_prompt(vocabulary, messages, request.max_tokens)
                for messages in conversations
            ]

        probes, prompts = greedy_answers(
            base,
            request.adapter,
            encoded(request.probes),
            encoded(request.prompts),
            request.max_new_tokens,
            lambda done, total: self._reply(EvaluationProgress(done=done, total=total)),
        )
        return Generated(
            probes=tuple(
                answer.answer(vocabulary).model_copy(
                    update={"prompt_tokens": self._exact_prompt(messages, request.max_tokens)}
                )
                for messages, answer in zip(request.probes, probes, strict=True)
            ),
            prompts=tuple(answer.answer(vocabulary) for answer in prompts),
        )

    def _exact_prompt(self, messages: Messages, max_tokens: int) -> tuple[int, ...] | None:
        """Return the token ids of a prompt; None if a server makes other ones of it."""
        vocabulary = self._loaded_base().vocabulary
        ids = encode_prompt(vocabulary, messages, max_tokens + 1)
        return None if len(ids) > max_tokens or vocabulary.depends_on_day else ids

    def _progress_reporter(self, total: int) -> Callable[[int], None]:
        return lambda done: self._reply(EvaluationProgress(done=done, total=total))

    def _loaded_base(self) -> LoadedBase:
        if self._base is None:
            raise RunFailed(
                "no base is loaded", "internal error: the trainer must load a base first"
            )
        return self._base

    def _reply(self, reply: Reply) -> None:
        self._replies.write(reply.model_dump_json().encode() + b"\n")
        self._replies.flush()


def _run_key(request: Train) -> str:
    """Return the digest of a run's data, configuration and parent.

    It does not depend on the location of folders, so a repeated request has the same key.
    """
    parent = request.parent.name if request.parent else ""
    return digest_of(
        f"{request.model_dump_json(exclude={'parent', 'checkpoints', 'out'})}{parent}".encode()
    )


def _free_device() -> None:
    """Release unused GPU memory to other processes."""
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()
