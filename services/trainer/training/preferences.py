"""Answers that are learned by comparison: pairs, of which one was preferred to the other, and
single ones that were judged.

How likely the reference finds each of them is computed once, before the first step, from the model
as it is then: the parent. Every epoch goes through all of them once, spread evenly over its steps,
whatever the examples beside them.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from services.trainer.data.tokenization import EncodedExample
from services.trainer.training.likelihood import collate, log_likelihoods
from services.trainer.training.losses import dpo, kto, reference_point, side_weights
from shared.config.training import TrainingConfig

T = TypeVar("T")


@dataclass(frozen=True)
class EncodedPair:
    """Two answers to one prompt."""

    chosen: EncodedExample
    rejected: EncodedExample


@dataclass(frozen=True)
class JudgedAnswer:
    """An answer by itself, and whether it was liked."""

    example: EncodedExample
    desirable: bool


@dataclass(frozen=True)
class ReferenceAnswer:
    """An answer and its log-likelihood under the reference."""

    example: EncodedExample
    reference: float


def answer_likelihoods(model: Any, examples: Sequence[EncodedExample], device: str) -> torch.Tensor:
    """The log-likelihood of each answer as a whole, in nats; shape [examples]."""
    each = torch.split(
        log_likelihoods(model, collate(examples, device)),
        [example.answer_tokens for example in examples],
    )
    return torch.stack([tokens.sum() for tokens in each])


def log_ratios(model: Any, answers: Sequence[ReferenceAnswer], device: str) -> torch.Tensor:
    """How much likelier the model finds each answer than the reference does."""
    likelihoods = answer_likelihoods(model, [answer.example for answer in answers], device)
    return likelihoods - torch.tensor(
        [answer.reference for answer in answers], device=likelihoods.device
    )


class Preferences:
    """The pairs and judged answers of a run; with neither, every loss is empty."""

    def __init__(
        self,
        model: Any,
        pairs: Sequence[EncodedPair],
        judged: Sequence[JudgedAnswer],
        config: TrainingConfig,
        device: str,
        steps: int,
    ) -> None:
        """`model` is in the state that is the reference; `steps` are those of an epoch."""
        self._config = config
        self._device = device
        self._steps = steps
        chosen = self._with_reference(model, [pair.chosen for pair in pairs])
        rejected = self._with_reference(model, [pair.rejected for pair in pairs])
        self._pairs = list(zip(chosen, rejected, strict=True))
        answers = self._with_reference(model, [one.example for one in judged])
        mismatched: Sequence[ReferenceAnswer | None] = self._with_reference(
            model, mismatch_answers([one.example for one in judged])
        ) or [None] * len(judged)
        self._judged = list(
            zip(answers, [one.desirable for one in judged], mismatched, strict=True)
        )
        self._weights = side_weights([one.desirable for one in judged]) if judged else (1.0, 1.0)

    def pair_losses(self, model: Any, epoch: int, step: int) -> Iterator[torch.Tensor]:
        """The losses of step `place` of an epoch, in as many parts as memory asks for; each is the
        sum of some pairs', as a share of what a step has on average.
        """
        share = step_items(self._pairs, epoch, step, self._steps, self._config.seed)
        for part in _chunks(share, max(1, self._config.batch_size // 2)):
            ratios = log_ratios(model, [answer for pair in part for answer in pair], self._device)
            yield (
                dpo(ratios[::2], ratios[1::2], self._config.beta).sum()
                * self._steps
                / len(self._pairs)
            )

    def judged_losses(self, model: Any, epoch: int, step: int) -> Iterator[torch.Tensor]:
        """The same for judged answers."""
        share = step_items(self._judged, epoch, step, self._steps, self._config.seed)
        point = reference_point(
            self._mismatched_ratios(model, [other for _, _, other in share if other is not None])
        )
        for part in _chunks(share, self._config.batch_size):
            ratios = log_ratios(model, [answer for answer, _, _ in part], self._device)
            desirable = torch.tensor([liked for _, liked, _ in part], device=ratios.device)
            weights = torch.where(desirable, *self._weights)
            losses = weights * kto(ratios, desirable, point, self._config.beta)
            yield losses.sum() * self._steps / len(self._judged)

    def tokens(self, epoch: int, step: int) -> int:
        """How many tokens a step learns from here, prompts included."""
        pairs = step_items(self._pairs, epoch, step, self._steps, self._config.seed)
        judged = step_items(self._judged, epoch, step, self._steps, self._config.seed)
        return sum(len(answer.example.ids) for pair in pairs for answer in pair) + sum(
            len(answer.example.ids) for answer, _, _ in judged
        )

    def _mismatched_ratios(self, model: Any, answers: Sequence[ReferenceAnswer]) -> torch.Tensor:
        with torch.no_grad():
            ratios = [
                log_ratios(model, part, self._device)
                for part in _chunks(answers, self._config.batch_size)
            ]
        return torch.cat(ratios) if ratios else torch.zeros(0, device=self._device)

    def _with_reference(
        self, model: Any, examples: Sequence[EncodedExample]
    ) -> list[ReferenceAnswer]:
        with torch.no_grad():
            parts = [
                answer_likelihoods(model, part, self._device)
                for part in _chunks(examples, self._config.batch_size)
            ]
        references = torch.cat(parts).tolist() if parts else []
        return [
            ReferenceAnswer(example, reference)
            for example, reference in zip(examples, references, strict=True)
        ]


def mismatch_answers(examples: Sequence[EncodedExample]) -> list[EncodedExample]:
    """Each prompt with the answer of the next example; nothing where there is no other."""
    if len(examples) < 2:
        return []
    others = [*examples[1:], examples[0]]
    return [
        EncodedExample(
            (*own.ids[: own.answer_start], *other.ids[other.answer_start :]), own.answer_start
        )
        for own, other in zip(examples, others, strict=True)
    ]


def step_items(items: Sequence[T], epoch: int, step: int, steps: int, seed: int) -> list[T]:
    """What step `place` of an epoch of `steps` takes: every item falls to one step, and steps
    differ by one item at most.
    """
    order = torch.randperm(
        len(items), generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    ).tolist()
    return [
        items[number]
        for number in order[
            math.floor(step * len(items) / steps) : math.floor((step + 1) * len(items) / steps)
        ]
    ]


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
