"""Evaluation of champion and candidate on the same examples: the evidence of the gate."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from services.trainer.data.training_set import Sample
from services.trainer.gate.answer_metrics import GreedyAnswers
from services.trainer.gate.base_answers import BASE, MAX_ANSWER_TOKENS, base_answers
from services.trainer.gate.evidence import GateEvidence, PairedScores
from services.trainer.protocol import GreedyAnswer, Messages
from services.trainer.run_folder import WorkFolder
from services.trainer.worker.client import OnProgress
from services.trainer.worker.model_session import EvaluatedModel, ModelSession
from shared.config.models import Models, RegressionPrompt
from shared.events import Digest, Probe
from shared.identity import digest_of
from shared.messaging.reasoning import without_reasoning


@dataclass(frozen=True)
class EvaluationSuite:
    """The evaluation sets of a model. The first `answered_count` examples of held-out and golden
    are also answered, for the answer metrics. `skipped` counts prompts of the model's files that
    the base's chat template refuses. Unless `keeps_reasoning`, the answer in a generated text is
    what follows the reasoning. `golden_digest` is that of the golden examples, None without any.
    """

    held_out: Sequence[Sample]
    golden: Sequence[Sample]
    regression: Sequence[Sample]
    regression_prompts: Sequence[RegressionPrompt]
    probes: Sequence[Messages]
    max_tokens: int
    answered_count: int = 0
    answer_tokens: int = MAX_ANSWER_TOKENS
    skipped: int = 0
    keeps_reasoning: bool = False
    golden_digest: Digest | None = None

    async def run(
        self,
        session: ModelSession,
        champion: EvaluatedModel,
        candidate: EvaluatedModel,
        on_progress: OnProgress,
    ) -> tuple[GateEvidence, tuple[Probe, ...]]:
        """Return the evidence on both models, and the candidate's answers to the probes, which a
        deployment must reproduce. Cached results of models other than these and the base are
        dropped. Raises RunFailed.
        """
        session.keep_only([BASE.name, champion.name, candidate.name])
        before = await self._scores(session, champion, (self.held_out, self.golden), on_progress)
        before += await self._scores(session, BASE, (self.regression,), on_progress)
        after = await self._scores(
            session, candidate, (self.held_out, self.golden, self.regression), on_progress
        )
        held_out, golden, regression = (
            PairedScores(*pair) for pair in zip(before, after, strict=True)
        )
        _, champion_answers = await session.generate(
            champion, self.max_tokens, self.answer_tokens, on_progress, prompts=self._prompts
        )
        # A deployment is compared with the probes token by token, so these need the exact path;
        # the text of the other answers is enough.
        probe_answers, candidate_answers = await session.generate(
            candidate,
            self.max_tokens,
            self.answer_tokens,
            on_progress,
            probes=self.probes,
            prompts=self._prompts,
        )
        probes = tuple(
            Probe(messages=messages, answer=answer.tokens, prompt_tokens=answer.prompt_tokens)
            for messages, answer in zip(self.probes, probe_answers, strict=True)
        )
        # The iterators are consumed in the order of `_prompts`.
        champions, candidates = iter(champion_answers), iter(candidate_answers)
        passed_before, passed_after = self._passed(champions), self._passed(candidates)
        held_out_answers, golden_answers = (
            self._greedy_answers(samples, champions, candidates) for samples in self._answered_sets
        )
        evidence = GateEvidence(
            held_out=held_out,
            golden=golden,
            regression=regression,
            prompts_passed_baseline=passed_before,
            prompts_passed_candidate=passed_after,
            held_out_answers=held_out_answers,
            golden_answers=golden_answers,
        )
        return evidence, probes

    async def prefetch(
        self, session: ModelSession, champion: EvaluatedModel, on_progress: OnProgress
    ) -> None:
        """Fill the session's cache with the champion's part of `run`. Raises RunFailed."""
        await self._scores(session, champion, (self.held_out, self.golden), on_progress)
        await session.generate(
            champion, self.max_tokens, self.answer_tokens, on_progress, prompts=self._prompts
        )

    @property
    def _answered_sets(self) -> list[Sequence[Sample]]:
        """Examples to answer for the answer metrics: of held-out, of golden."""
        return [samples[: self.answered_count] for samples in (self.held_out, self.golden)]

    @property
    def _prompts(self) -> list[Messages]:
        """Prompts to answer: the regression prompts, then those of the answered sets."""
        return [
            *(prompt.messages for prompt in self.regression_prompts),
            *(sample.messages for samples in self._answered_sets for sample in samples),
        ]

    async def _scores(
        self,
        session: ModelSession,
        model: EvaluatedModel,
        sets: Sequence[Sequence[Sample]],
        on_progress: OnProgress,
    ) -> list[list[float]]:
        """Return the scores of each set. Each has a request of its own: the rows of an unchanged
        set are then the same in every run, and their frozen layers are not computed again.
        """
        return [
            await session.score(model, samples, self.max_tokens, on_progress) for samples in sets
        ]

    def _passed(self, answers: Iterator[GreedyAnswer]) -> list[bool]:
        """Consume the answers to the regression prompts, which come first."""
        return [
            passes(prompt, self._answer_in(next(answers))) for prompt in self.regression_prompts
        ]

    def _greedy_answers(
        self,
        samples: Sequence[Sample],
        before: Iterator[GreedyAnswer],
        after: Iterator[GreedyAnswer],
    ) -> GreedyAnswers:
        """Consume the next answers of both models, which are those to `samples`."""
        baseline, candidate = (
            [self._answer_in(answer) for answer in islice(answers, len(samples))]
            for answers in (before, after)
        )
        return GreedyAnswers([sample.answer for sample in samples], baseline, candidate)

    def _answer_in(self, generated: GreedyAnswer) -> str:
        return generated.text if self.keeps_reasoning else without_reasoning(generated.text)


def passes(prompt: RegressionPrompt, answer: str) -> bool:
    """True if an answer contains every required text and no forbidden one, ignoring case."""
    folded = answer.casefold()
    return all(text.casefold() in folded for text in prompt.must_contain) and not any(
        text.casefold() in folded for text in prompt.must_not_contain
    )


async def build_suite(
    models: Models,
    model: str,
    held_out: Sequence[Sample],
    new: Sequence[Sample],
    max_tokens: int,
    session: ModelSession,
    work: WorkFolder,
    on_progress: OnProgress,
) -> EvaluationSuite:
    """Collect the evaluation sets of a model. The base answers the prompts of the regression set
    once; its answers are cached on disk.

    Prompts of the model's files that the base's chat template refuses are left out. Probes are
    golden prompts first, then held-out ones, then new ones, as far as a server renders them in the
    same way. Raises RunFailed, ModelFileError.
    """
    gate = models.get(model).gate
    golden = [
        Sample(messages=example.messages, answer=example.answer) for example in models.golden(model)
    ]
    regression_prompts = models.regression_prompts(model)
    regression = [prompt.messages for prompt in models.regression_set(model)]
    evaluated = [*golden, *held_out, *new]
    check = await session.check_prompts(
        [
            *(example.messages for example in evaluated),
            *(prompt.messages for prompt in regression_prompts),
            *regression,
        ]
    )
    golden = [example for example in golden if example.messages not in check.refused]
    probes = dict.fromkeys(
        example.messages
        for example in evaluated
        if example.messages not in check.refused and example.messages not in check.inexact
    )
    return EvaluationSuite(
        held_out=held_out,
        golden=golden,
        regression=await base_answers(regression, session, work, max_tokens, on_progress),
        regression_prompts=[
            prompt for prompt in regression_prompts if prompt.messages not in check.refused
        ],
        probes=list(probes)[: gate.probes],
        max_tokens=max_tokens,
        answered_count=gate.answered,
        answer_tokens=gate.answer_tokens,
        skipped=len(check.refused),
        keeps_reasoning=models.get(model).thinking == "keep",
        golden_digest=digest_of(b"".join(row.model_dump_json().encode() for row in golden))
        if golden
        else None,
    )
