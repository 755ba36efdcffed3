"""Session with one base in the training process, with a cache of the champion's results."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from services.trainer.data.objective_data import ObjectiveData
from services.trainer.data.training_set import Sample
from services.trainer.errors import RunFailed, TrainingProcessEnded
from services.trainer.machine.bases import LocalBase
from services.trainer.machine.effective_settings import Device
from services.trainer.protocol import (
    CheckPrompts,
    DescribeDevice,
    DeviceDescribed,
    EstimateMemory,
    Generate,
    Generated,
    GreedyAnswer,
    Load,
    Loaded,
    MemoryEstimate,
    Messages,
    PromptsChecked,
    Request,
    Score,
    Scores,
    Train,
    Trained,
)
from services.trainer.worker.client import OnProgress, TrainingProcess, ignore_progress
from services.trainer.worker.resource_exhaustion import memory_advice
from shared.config.template_variables import DEFAULT_VARIABLES, TemplateVariables
from shared.config.training import TrainingConfig
from shared.events import FrozenModel

R = TypeVar("R", bound=FrozenModel)


@dataclass(frozen=True)
class EvaluatedModel:
    """A model to evaluate: an adapter in a folder, or the bare base. Equal names mean equal
    weights.
    """

    name: str
    adapter: Path | None


@dataclass(frozen=True)
class PromptCheck:
    """Prompts that the base's chat template refuses, with its reasons, and prompts that a server
    would render otherwise.
    """

    refused: Mapping[Messages, str]
    inexact: Collection[Messages]


class ModelSession:
    """Trains and evaluates one base in the training process. Scores and answers are cached until
    `keep_only`.

    Every method raises RunFailed if the process refuses, or has died twice.
    """

    def __init__(
        self,
        process: TrainingProcess,
        base: LocalBase,
        precision: str,
        quantisation: str = "none",
        template: TemplateVariables = DEFAULT_VARIABLES,
    ) -> None:
        self._process = process
        self.base = base
        self.template = template
        self._load = Load(
            base=base.folder, precision=precision, quantisation=quantisation, template=template
        )
        self._scores: dict[tuple[str, Sample], float] = {}
        self._answers: dict[tuple[str, Messages, int, bool], GreedyAnswer] = {}

    async def load(self) -> None:
        """Load the base into memory."""
        await self._request(self._load, Loaded)

    async def describe_device(self) -> Device:
        """Describe the device that trains."""
        reply = await self._request(DescribeDevice(), DeviceDescribed)
        return Device(reply.device, reply.precision, reply.memory)

    async def estimate_memory(
        self, samples: Sequence[Sample], configuration: TrainingConfig
    ) -> MemoryEstimate:
        """Estimate the memory of training on these samples. Raises RunFailed, with a change that
        fits, if memory is too small.
        """
        return await self._request(
            EstimateMemory(
                base=self.base.folder,
                examples=tuple(samples),
                configuration=configuration,
                template=self.template,
            ),
            MemoryEstimate,
        )

    async def check_prompts(self, prompts: Iterable[Messages]) -> PromptCheck:
        """Check which prompts the base's chat template accepts."""
        distinct = tuple(dict.fromkeys(prompts))
        if not distinct:
            return PromptCheck({}, frozenset())
        request = CheckPrompts(base=self.base.folder, prompts=distinct, template=self.template)
        checked = await self._request(request, PromptsChecked)
        return PromptCheck(
            {distinct[index]: reason for index, reason in checked.refused.items()},
            frozenset(distinct[index] for index in checked.inexact),
        )

    async def train(
        self,
        data: ObjectiveData,
        configuration: TrainingConfig,
        parent: Path | None,
        out: Path,
        on_progress: OnProgress,
        checkpoints: Path | None = None,
    ) -> Trained:
        """Train from `parent`'s adapter, or a fresh one, and write the result to `out`. Checkpoints
        go into the parent folder of `out` by default.
        """
        request = Train(
            examples=tuple(data.examples),
            pairs=tuple(data.pairs),
            desirable=tuple(data.desirable),
            undesirable=tuple(data.undesirable),
            configuration=configuration,
            parent=parent,
            checkpoints=checkpoints or out.parent,
            out=out,
            base_name=self.base.name,
        )
        return await self._request(request, Trained, on_progress)

    async def score(
        self,
        model: EvaluatedModel,
        samples: Sequence[Sample],
        max_tokens: int,
        on_progress: OnProgress,
    ) -> list[float]:
        """Compute the mean log-likelihood per answer token of each sample, in nats."""
        missing = tuple(
            dict.fromkeys(sample for sample in samples if (model.name, sample) not in self._scores)
        )
        if missing:
            request = Score(adapter=model.adapter, samples=missing, max_tokens=max_tokens)
            reply = await self._request(request, Scores, on_progress)
            self._scores.update(
                {
                    (model.name, sample): value
                    for sample, value in zip(missing, reply.scores, strict=True)
                }
            )
        return [self._scores[model.name, sample] for sample in samples]

    async def generate(
        self,
        model: EvaluatedModel,
        max_tokens: int,
        max_new_tokens: int,
        on_progress: OnProgress,
        *,
        probes: Sequence[Messages] = (),
        prompts: Sequence[Messages] = (),
    ) -> tuple[list[GreedyAnswer], list[GreedyAnswer]]:
        """Generate greedy answers of at most `max_new_tokens`: to each probe as an F16 server does,
        to each prompt as fast as possible.

        One combined call costs hardly more than either part.
        """
        keys = [
            [(model.name, conversation, max_new_tokens, exact) for conversation in conversations]
            for conversations, exact in ((probes, True), (prompts, False))
        ]
        missing = [
            [key for key in dict.fromkeys(group) if key not in self._answers] for group in keys
        ]
        if any(missing):
            new_probes, new_prompts = (
                tuple(conversation for _, conversation, _, _ in group) for group in missing
            )
            request = Generate(
                adapter=model.adapter,
                probes=new_probes,
                prompts=new_prompts,
                max_tokens=max_tokens,
                max_new_tokens=max_new_tokens,
            )
            generated = await self._request(request, Generated, on_progress)
            for group, answers in zip(missing, (generated.probes, generated.prompts), strict=True):
                self._answers.update(zip(group, answers, strict=True))
        probe_answers, prompt_answers = ([self._answers[key] for key in group] for group in keys)
        return probe_answers, prompt_answers

    def keep_only(self, names: Sequence[str]) -> None:
        """Drop cached results of all other models."""
        self._scores = {key: value for key, value in self._scores.items() if key[0] in names}
        self._answers = {key: value for key, value in self._answers.items() if key[0] in names}

    async def _request(
        self, request: Request, expected: type[R], on_progress: OnProgress = ignore_progress
    ) -> R:
        """Load the base, unless the request needs none, and send the request. If the process dies,
        repeat both once.
        """
        has_died = False
        while True:
            try:
                if not isinstance(request, EstimateMemory | DescribeDevice | CheckPrompts):
                    await self._process.request(self._load, Loaded)
                return await self._process.request(request, expected, on_progress)
            except TrainingProcessEnded as error:
                if has_died:
                    raise RunFailed(
                        f"the training process died twice: {error}", _advice(request, error)
                    ) from error
                has_died = True


def _advice(request: Request, error: TrainingProcessEnded) -> str:
    """Return advice for a training process that dies repeatedly."""
    if error.out_of_memory and isinstance(request, Train | EstimateMemory):
        return memory_advice(request.configuration)
    if error.out_of_memory:
        return (
            "evaluate shorter examples, or give the trainer a machine with more memory; the kernel "
            "log shows whether the OOM killer ended the process"
        )
    return "see the last lines that the training process wrote to standard error"
