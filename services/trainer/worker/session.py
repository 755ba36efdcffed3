"""Where a model is trained and examined: the child with one base in hand, and what is already known
of the champion.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from services.trainer.data.objective_data import Lessons
from services.trainer.data.training_set import Sample
from services.trainer.errors import ChildEnded, RunFailed
from services.trainer.machine.bases import Base
from services.trainer.protocol import (
    Answer,
    Answered,
    Fit,
    Fits,
    Greedy,
    Load,
    Loaded,
    Messages,
    Request,
    Score,
    Scored,
    Train,
    Trained,
)
from services.trainer.worker.client import ChildProcess, Heard, ignore
from services.trainer.worker.resource_exhaustion import what_would_fit
from shared.config.training import TrainingConfig
from shared.events import Value

R = TypeVar("R", bound=Value)

Done = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Subject:
    """A model to examine: an adapter in a folder, or the bare base. `name` is the same for the same
    weights only.
    """

    name: str
    adapter: Path | None


class Bench:
    """One base, trained on and examined by a child. What was once measured of a subject is
    remembered until `forget_all_but`.

    Every method raises RunFailed when the child refuses, or has died twice.
    """

    def __init__(
        self, child: ChildProcess, base: Base, precision: str, quantisation: str = "none"
    ) -> None:
        self._child = child
        self.base = base
        self._load = Load(base=base.folder, precision=precision, quantisation=quantisation)
        self._scores: dict[tuple[str, Sample], float] = {}
        self._answers: dict[tuple[str, Messages, int, bool], Greedy] = {}

    async def load(self) -> None:
        """Have the base in memory."""
        await self._ask(self._load, Loaded, ignore)

    async def fit(self, samples: Sequence[Sample], configuration: TrainingConfig) -> Fits:
        """How much memory training on these would need. Raises RunFailed, with what would fit, when
        there is not so much.
        """
        return await self._ask(
            Fit(base=self.base.folder, examples=tuple(samples), configuration=configuration),
            Fits,
            ignore,
        )

    async def train(
        self,
        lessons: Lessons,
        configuration: TrainingConfig,
        parent: Path | None,
        out: Path,
        heard: Heard,
        checkpoints: Path | None = None,
    ) -> Trained:
        """Train from `parent`'s adapter, or a fresh one, and write the result to `out`; checkpoints
        go beside it unless told otherwise.
        """
        request = Train(
            examples=tuple(lessons.examples),
            pairs=tuple(lessons.pairs),
            desirable=tuple(lessons.desirable),
            undesirable=tuple(lessons.undesirable),
            configuration=configuration,
            parent=parent,
            checkpoints=checkpoints or out.parent,
            out=out,
            base_name=self.base.name,
        )
        return await self._ask(request, Trained, heard)

    async def score(
        self, subject: Subject, samples: Sequence[Sample], max_tokens: int, heard: Heard
    ) -> list[float]:
        """Mean log-likelihood per answer token of each sample, in nats."""
        unknown = tuple(
            dict.fromkeys(
                sample for sample in samples if (subject.name, sample) not in self._scores
            )
        )
        if unknown:
            request = Score(adapter=subject.adapter, samples=unknown, max_tokens=max_tokens)
            scored = await self._ask(request, Scored, heard)
            self._scores.update(
                {
                    (subject.name, sample): value
                    for sample, value in zip(unknown, scored.scores, strict=True)
                }
            )
        return [self._scores[subject.name, sample] for sample in samples]

    async def answer(
        self,
        subject: Subject,
        max_tokens: int,
        max_new_tokens: int,
        heard: Heard,
        *,
        probes: Sequence[Messages] = (),
        prompts: Sequence[Messages] = (),
    ) -> tuple[list[Greedy], list[Greedy]]:
        """Greedy answers of at most `max_new_tokens`: to each probe as an F16 server gives it, to
        each prompt as fast as may be.

        What is asked for together costs hardly more than a part of it.
        """
        keys = [
            [(subject.name, asked, max_new_tokens, exactly) for asked in each]
            for each, exactly in ((probes, True), (prompts, False))
        ]
        unknown = [
            [key for key in dict.fromkeys(each) if key not in self._answers] for each in keys
        ]
        if any(unknown):
            of_probes, of_prompts = (tuple(asked for _, asked, _, _ in each) for each in unknown)
            request = Answer(
                adapter=subject.adapter,
                probes=of_probes,
                prompts=of_prompts,
                max_tokens=max_tokens,
                max_new_tokens=max_new_tokens,
            )
            answered = await self._ask(request, Answered, heard)
            for each, answers in zip(unknown, (answered.probes, answered.prompts), strict=True):
                self._answers.update(zip(each, answers, strict=True))
        known_probes, known_prompts = ([self._answers[key] for key in each] for each in keys)
        return known_probes, known_prompts

    def forget_all_but(self, names: Sequence[str]) -> None:
        """Keep what is known of these subjects only."""
        self._scores = {key: value for key, value in self._scores.items() if key[0] in names}
        self._answers = {key: value for key, value in self._answers.items() if key[0] in names}

    async def _ask(self, request: Request, expected: type[R], heard: Heard) -> R:
        try:
            return await self._ask_loaded(request, expected, heard)
        except ChildEnded:
            try:
                return await self._ask_loaded(request, expected, heard)
            except ChildEnded as error:
                raise RunFailed(
                    f"the training process died twice: {error}", _advice(request, error)
                ) from error

    async def _ask_loaded(self, request: Request, expected: type[R], heard: Heard) -> R:
        if not isinstance(request, Fit):
            await self._child.ask(self._load, Loaded)
        return await self._child.ask(request, expected, heard)


def _advice(request: Request, error: ChildEnded) -> str:
    """What to do about a child that dies again and again."""
    if error.short_of_memory and isinstance(request, Train | Fit):
        return what_would_fit(request.configuration)
    if error.short_of_memory:
        return (
            "examine shorter examples, or give the trainer a machine with more memory; look for "
            "a message of the kernel"
        )
    return "look at what the training process wrote to standard error before it died"
