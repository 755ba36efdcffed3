"""The evidence of the gate: candidate and champion, examined on the same examples."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from services.trainer.data.training_set import Sample
from services.trainer.gate.answer_metrics import GreedyAnswers
from services.trainer.gate.base_answers import BASE, MAX_ANSWER_TOKENS, base_answers, text_of
from services.trainer.gate.decision import GateEvidence, PairedScores
from services.trainer.protocol import GreedyAnswer, Messages
from services.trainer.run_folder import RunFolders
from services.trainer.worker.client import OnProgress
from services.trainer.worker.model_session import EvaluatedModel, ModelSession
from shared.config.model_file import Models, RegressionPrompt
from shared.events import Probe


@dataclass(frozen=True)
class EvaluationSuite:
    """The sets that a model's candidates are examined on. Of held-out and golden the first
    `answered` are answered, to be measured.
    """

    held_out: Sequence[Sample]
    golden: Sequence[Sample]
    regression: Sequence[Sample]
    regression_prompts: Sequence[RegressionPrompt]
    probes: Sequence[Messages]
    max_tokens: int
    answered_count: int = 0
    answer_tokens: int = MAX_ANSWER_TOKENS

    async def run(
        self,
        bench: ModelSession,
        champion: EvaluatedModel,
        candidate: EvaluatedModel,
        heard: OnProgress,
    ) -> tuple[GateEvidence, tuple[Probe, ...]]:
        """The evidence on both, and how the candidate answers the probes: whatever serves it must
        answer alike. Raises RunFailed.
        """
        before = await self._scores(bench, champion, (self.held_out, self.golden), heard)
        before += await self._scores(bench, BASE, (self.regression,), heard)
        after = await self._scores(
            bench, candidate, (self.held_out, self.golden, self.regression), heard
        )
        held_out, golden, retention = (
            PairedScores(*pair) for pair in zip(before, after, strict=True)
        )
        _, of_champion = await bench.generate(
            champion, self.max_tokens, self.answer_tokens, heard, prompts=self._asked
        )
        # What is served is held to the probes token by token; other answers are read as a person
        # reads them.
        probed, of_candidate = await bench.generate(
            candidate,
            self.max_tokens,
            self.answer_tokens,
            heard,
            probes=self.probes,
            prompts=self._asked,
        )
        answered = tuple(
            Probe(messages=messages, answer=answer)
            for messages, answer in zip(self.probes, probed, strict=True)
        )
        champions, candidates = iter(of_champion), iter(of_candidate)
        passed_before, passed_after = self._passed(champions), self._passed(candidates)
        held_out_said, golden_said = (
            _said(samples, champions, candidates) for samples in self._measured
        )
        evidence = GateEvidence(
            held_out=held_out,
            golden=golden,
            regression=retention,
            prompts_passed_baseline=passed_before,
            prompts_passed_candidate=passed_after,
            held_out_answers=held_out_said,
            golden_answers=golden_said,
        )
        return evidence, answered

    async def prefetch(
        self, bench: ModelSession, champion: EvaluatedModel, heard: OnProgress
    ) -> None:
        """Have the bench know what `hold` will want to know of the champion. Raises RunFailed."""
        await self._scores(bench, champion, (self.held_out, self.golden), heard)
        await bench.generate(
            champion, self.max_tokens, self.answer_tokens, heard, prompts=self._asked
        )

    @property
    def _measured(self) -> list[Sequence[Sample]]:
        """What is answered to be measured: of held-out, of golden."""
        return [samples[: self.answered_count] for samples in (self.held_out, self.golden)]

    @property
    def _asked(self) -> list[Messages]:
        """The canaries, then what is measured."""
        return [
            *(canary.messages for canary in self.regression_prompts),
            *(sample.messages for samples in self._measured for sample in samples),
        ]

    async def _scores(
        self,
        bench: ModelSession,
        subject: EvaluatedModel,
        sets: Sequence[Sequence[Sample]],
        heard: OnProgress,
    ) -> list[list[float]]:
        """The scores of each set, all of them asked for together."""
        scores = iter(
            await bench.score(
                subject, [sample for samples in sets for sample in samples], self.max_tokens, heard
            )
        )
        return [list(islice(scores, len(samples))) for samples in sets]

    def _passed(self, answers: Iterator[GreedyAnswer]) -> list[bool]:
        """Takes the answers to the canaries, which come first."""
        return [passes(canary, text_of(next(answers))) for canary in self.regression_prompts]


def _said(
    samples: Sequence[Sample], before: Iterator[GreedyAnswer], after: Iterator[GreedyAnswer]
) -> GreedyAnswers:
    """Takes the next answers of both: those to `samples`."""
    baseline, candidate = (
        [text_of(answer) for answer in islice(answers, len(samples))] for answers in (before, after)
    )
    return GreedyAnswers([sample.answer for sample in samples], baseline, candidate)


def passes(canary: RegressionPrompt, answer: str) -> bool:
    """Whether an answer contains all that it must and nothing that it must not; upper and lower
    case count as the same.
    """
    said = answer.casefold()
    return all(text.casefold() in said for text in canary.must_contain) and not any(
        text.casefold() in said for text in canary.must_not_contain
    )


async def build_suite(
    models: Models,
    model: str,
    held_out: Sequence[Sample],
    new: Sequence[Sample],
    max_tokens: int,
    bench: ModelSession,
    runs: RunFolders,
    heard: OnProgress,
) -> EvaluationSuite:
    """Gather the sets of a model. The base answers the retention prompts once; its answers are kept
    on disk.

    Probes are golden prompts first, then held-out ones, then new ones. Raises RunFailed,
    ModelFileError.
    """
    gate = models.get(model).gate
    golden = [
        Sample(messages=reference.messages, answer=reference.answer)
        for reference in models.golden(model)
    ]
    candidates = dict.fromkeys(
        sample.messages for samples in (golden, held_out, new) for sample in samples
    )
    return EvaluationSuite(
        held_out=held_out,
        golden=golden,
        regression=await base_answers(
            [prompt.messages for prompt in models.regression_set(model)],
            bench,
            runs,
            max_tokens,
            heard,
        ),
        regression_prompts=models.regression_prompts(model),
        probes=list(candidates)[: gate.probes],
        max_tokens=max_tokens,
        answered_count=gate.answered,
        answer_tokens=gate.answer_tokens,
    )
