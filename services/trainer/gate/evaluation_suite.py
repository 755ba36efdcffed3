"""The evidence of the gate: candidate and champion, examined on the same examples."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from services.trainer.data.training_set import Sample
from services.trainer.gate.answer_metrics import Said
from services.trainer.gate.base_answers import ANSWER_TOKENS, BASE, own_answers, text_of
from services.trainer.gate.decision import Evidence, Paired
from services.trainer.protocol import Greedy, Messages
from services.trainer.run_folder import Runs
from services.trainer.worker.client import Heard
from services.trainer.worker.session import Bench, Subject
from shared.config.model_file import Canary, Models
from shared.events import Probe


@dataclass(frozen=True)
class Examination:
    """The sets that a model's candidates are examined on. Of held-out and golden the first
    `answered` are answered, to be measured.
    """

    held_out: Sequence[Sample]
    golden: Sequence[Sample]
    retention: Sequence[Sample]
    canaries: Sequence[Canary]
    probes: Sequence[Messages]
    max_tokens: int
    answered: int = 0
    answer_tokens: int = ANSWER_TOKENS

    async def hold(
        self, bench: Bench, champion: Subject, candidate: Subject, heard: Heard
    ) -> tuple[Evidence, tuple[Probe, ...]]:
        """The evidence on both, and how the candidate answers the probes: whatever serves it must
        answer alike. Raises RunFailed.
        """
        before = await self._scores(bench, champion, (self.held_out, self.golden), heard)
        before += await self._scores(bench, BASE, (self.retention,), heard)
        after = await self._scores(
            bench, candidate, (self.held_out, self.golden, self.retention), heard
        )
        held_out, golden, retention = (Paired(*pair) for pair in zip(before, after, strict=True))
        _, of_champion = await bench.answer(
            champion, self.max_tokens, self.answer_tokens, heard, prompts=self._asked
        )
        # What is served is held to the probes token by token; other answers are read as a person
        # reads them.
        probed, of_candidate = await bench.answer(
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
        evidence = Evidence(
            held_out=held_out,
            golden=golden,
            retention=retention,
            canaries_baseline=passed_before,
            canaries_candidate=passed_after,
            held_out_said=held_out_said,
            golden_said=golden_said,
        )
        return evidence, answered

    async def foresee(self, bench: Bench, champion: Subject, heard: Heard) -> None:
        """Have the bench know what `hold` will want to know of the champion. Raises RunFailed."""
        await self._scores(bench, champion, (self.held_out, self.golden), heard)
        await bench.answer(
            champion, self.max_tokens, self.answer_tokens, heard, prompts=self._asked
        )

    @property
    def _measured(self) -> list[Sequence[Sample]]:
        """What is answered to be measured: of held-out, of golden."""
        return [samples[: self.answered] for samples in (self.held_out, self.golden)]

    @property
    def _asked(self) -> list[Messages]:
        """The canaries, then what is measured."""
        return [
            *(canary.messages for canary in self.canaries),
            *(sample.messages for samples in self._measured for sample in samples),
        ]

    async def _scores(
        self, bench: Bench, subject: Subject, sets: Sequence[Sequence[Sample]], heard: Heard
    ) -> list[list[float]]:
        """The scores of each set, all of them asked for together."""
        scores = iter(
            await bench.score(
                subject, [sample for samples in sets for sample in samples], self.max_tokens, heard
            )
        )
        return [list(islice(scores, len(samples))) for samples in sets]

    def _passed(self, answers: Iterator[Greedy]) -> list[bool]:
        """Takes the answers to the canaries, which come first."""
        return [passes(canary, text_of(next(answers))) for canary in self.canaries]


def _said(samples: Sequence[Sample], before: Iterator[Greedy], after: Iterator[Greedy]) -> Said:
    """Takes the next answers of both: those to `samples`."""
    baseline, candidate = (
        [text_of(answer) for answer in islice(answers, len(samples))] for answers in (before, after)
    )
    return Said([sample.answer for sample in samples], baseline, candidate)


def passes(canary: Canary, answer: str) -> bool:
    """Whether an answer contains all that it must and nothing that it must not; upper and lower
    case count as the same.
    """
    said = answer.casefold()
    return all(text.casefold() in said for text in canary.must_contain) and not any(
        text.casefold() in said for text in canary.must_not_contain
    )


async def prepare(
    models: Models,
    model: str,
    held_out: Sequence[Sample],
    new: Sequence[Sample],
    max_tokens: int,
    bench: Bench,
    runs: Runs,
    heard: Heard,
) -> Examination:
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
    return Examination(
        held_out=held_out,
        golden=golden,
        retention=await own_answers(
            [prompt.messages for prompt in models.retention(model)], bench, runs, max_tokens, heard
        ),
        canaries=models.canaries(model),
        probes=list(candidates)[: gate.probes],
        max_tokens=max_tokens,
        answered=gate.answered,
        answer_tokens=gate.answer_tokens,
    )
