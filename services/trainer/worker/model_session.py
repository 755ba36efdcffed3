"""Where a model is trained and examined: the child with one base in hand, and what is already known
of the champion.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from services.trainer.data.objective_data import ObjectiveData
from services.trainer.data.training_set import Sample
from services.trainer.errors import ChildProcessEnded, RunFailed
from services.trainer.machine.bases import LocalBase
from services.trainer.protocol import (
    EstimateMemory,
    Generate,
    Generated,
    GreedyAnswer,
    Load,
    Loaded,
    MemoryEstimate,
    Messages,
    Request,
    Score,
    Scores,
    Train,
    Trained,
)
from services.trainer.worker.client import OnProgress, TrainingProcess, ignore_progress
from services.trainer.worker.resource_exhaustion import memory_advice
from shared.config.training import TrainingConfig
from shared.events import FrozenModel

R = TypeVar("R", bound=FrozenModel)

Done = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class EvaluatedModel:
    """A model to examine: an adapter in a folder, or the bare base. `name` is the same for the same
    weights only.
    """

    name: str
    adapter: Path | None


class ModelSession:
    """One base, trained on and examined by a child. What was once measured of a subject is
    remembered until `forget_all_but`.

    Every method raises RunFailed when the child refuses, or has died twice.
    """

    def __init__(
        self, process: TrainingProcess, base: LocalBase, precision: str, quantisation: str = "none"
    ) -> None:
        self._process = process
        self.base = base
        self._load = Load(base=base.folder, precision=precision, quantisation=quantisation)
        self._scores: dict[tuple[str, Sample], float] = {}
        self._answers: dict[tuple[str, Messages, int, bool], GreedyAnswer] = {}

    async def load(self) -> None:
        """Have the base in memory."""
        await self._request(self._load, Loaded, ignore_progress)

    async def estimate_memory(
        self, samples: Sequence[Sample], configuration: TrainingConfig
    ) -> MemoryEstimate:
        """How much memory training on these would need. Raises RunFailed, with what would fit, when
        there is not so much.
        """
        return await self._request(
            EstimateMemory(
                base=self.base.folder, examples=tuple(samples), configuration=configuration
            ),
            MemoryEstimate,
            ignore_progress,
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
        """Train from `parent`'s adapter, or a fresh one, and write the result to `out`; checkpoints
        go beside it unless told otherwise.
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
        """Mean log-likelihood per answer token of each sample, in nats."""
        unknown = tuple(
            dict.fromkeys(sample for sample in samples if (model.name, sample) not in self._scores)
        )
        if unknown:
            request = Score(adapter=model.adapter, samples=unknown, max_tokens=max_tokens)
            scored = await self._request(request, Scores, on_progress)
            self._scores.update(
                {
                    (model.name, sample): value
                    for sample, value in zip(unknown, scored.scores, strict=True)
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
        """Greedy answers of at most `max_new_tokens`: to each probe as an F16 server gives it, to
        each prompt as fast as may be.

        What is asked for together costs hardly more than a part of it.
        """
        keys = [
            [(model.name, asked, max_new_tokens, exactly) for asked in each]
            for each, exactly in ((probes, True), (prompts, False))
        ]
        unknown = [
            [key for key in dict.fromkeys(each) if key not in self._answers] for each in keys
        ]
        if any(unknown):
            of_probes, of_prompts = (tuple(asked for _, asked, _, _ in each) for each in unknown)
            request = Generate(
                adapter=model.adapter,
                probes=of_probes,
                prompts=of_prompts,
                max_tokens=max_tokens,
                max_new_tokens=max_new_tokens,
            )
            answered = await self._request(request, Generated, on_progress)
            for each, answers in zip(unknown, (answered.probes, answered.prompts), strict=True):
                self._answers.update(zip(each, answers, strict=True))
        known_probes, known_prompts = ([self._answers[key] for key in each] for each in keys)
        return known_probes, known_prompts

    def keep_only(self, names: Sequence[str]) -> None:
        """Keep what is known of these subjects only."""
        self._scores = {key: value for key, value in self._scores.items() if key[0] in names}
        self._answers = {key: value for key, value in self._answers.items() if key[0] in names}

    async def _request(self, request: Request, expected: type[R], on_progress: OnProgress) -> R:
        try:
            return await self._request_loaded(request, expected, on_progress)
        except ChildProcessEnded:
            try:
                return await self._request_loaded(request, expected, on_progress)
            except ChildProcessEnded as error:
                raise RunFailed(
                    f"the training process died twice: {error}", _advice(request, error)
                ) from error

    async def _request_loaded(
        self, request: Request, expected: type[R], on_progress: OnProgress
    ) -> R:
        if not isinstance(request, EstimateMemory):
            await self._process.request(self._load, Loaded)
        return await self._process.request(request, expected, on_progress)


def _advice(request: Request, error: ChildProcessEnded) -> str:
    """What to do about a child that dies again and again."""
    if error.out_of_memory and isinstance(request, Train | EstimateMemory):
        return memory_advice(request.configuration)
    if error.out_of_memory:
        return (
            "examine shorter examples, or give the trainer a machine with more memory; look for "
            "a message of the kernel"
        )
    return "look at what the training process wrote to standard error before it died"
