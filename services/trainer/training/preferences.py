"""Preference objectives: pairs of a chosen and a rejected answer, and single judged answers.

Their log-likelihoods under the reference are computed once, before the first step, from the model
in its initial state: the parent. Every epoch uses each of them once, spread evenly over its steps,
independently of the supervised examples.
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
    """A single answer with its rating."""

    example: EncodedExample
    desirable: bool


@dataclass(frozen=True)
class ReferenceAnswer:
    """An answer and its log-likelihood under the reference."""

    example: EncodedExample
    reference: float


def answer_likelihoods(model: Any, examples: Sequence[EncodedExample], device: str) -> torch.Tensor:
    """Compute the log-likelihood of each whole answer, in nats; shape [examples]."""
    answers = torch.split(
        log_likelihoods(model, collate(examples, device)),
        [example.answer_tokens for example in examples],
    )
    return torch.stack([tokens.sum() for tokens in answers])


def log_ratios(model: Any, answers: Sequence[ReferenceAnswer], device: str) -> torch.Tensor:
    """Compute each answer's log-likelihood under the model minus that under the reference."""
    likelihoods = answer_likelihoods(model, [answer.example for answer in answers], device)
    return likelihoods - torch.tensor(
        [answer.reference for answer in answers], device=likelihoods.device
    )


class Preferences:
    """The pairs and judged answers of a run; without any, all losses are empty."""

    def __init__(
        self,
        model: Any,
        pairs: Sequence[EncodedPair],
        judged: Sequence[JudgedAnswer],
        config: TrainingConfig,
        device: str,
        steps: int,
    ) -> None:
        """`model` must be in the reference state; `steps` is the number of steps per epoch."""
        self._config = config
        self._device = device
        self._steps = steps
        chosen = self._with_reference(model, [pair.chosen for pair in pairs])
        rejected = self._with_reference(model, [pair.rejected for pair in pairs])
        self._pairs = list(zip(chosen, rejected, strict=True))
        answers = self._with_reference(model, [answer.example for answer in judged])
        mismatched: Sequence[ReferenceAnswer | None] = self._with_reference(
            model, mismatch_answers([answer.example for answer in judged])
        ) or [None] * len(judged)
        self._judged = list(
            zip(answers, [answer.desirable for answer in judged], mismatched, strict=True)
        )
        self._weights = (
            side_weights([answer.desirable for answer in judged]) if judged else (1.0, 1.0)
        )

    def pair_losses(self, model: Any, epoch: int, step: int) -> Iterator[torch.Tensor]:
        """Yield the pair losses of a step of an epoch, in parts that fit into memory.

        Each part is the sum over some pairs, relative to the average number of pairs per step.
        """
        pairs = step_items(self._pairs, epoch, step, self._steps, self._config.seed)
        for chunk in _chunks(pairs, max(1, self._config.batch_size // 2)):
            ratios = log_ratios(model, [answer for pair in chunk for answer in pair], self._device)
            yield (
                dpo(ratios[::2], ratios[1::2], self._config.beta).sum()
                * self._steps
                / len(self._pairs)
            )

    def judged_losses(self, model: Any, epoch: int, step: int) -> Iterator[torch.Tensor]:
        """Yield the losses of judged answers, as `pair_losses` does for pairs."""
        judged = step_items(self._judged, epoch, step, self._steps, self._config.seed)
        mismatched = [answer for _, _, answer in judged if answer is not None]
        point = reference_point(self._mismatched_ratios(model, mismatched))
        for chunk in _chunks(judged, self._config.batch_size):
            ratios = log_ratios(model, [answer for answer, _, _ in chunk], self._device)
            desirable = torch.tensor([liked for _, liked, _ in chunk], device=ratios.device)
            weights = torch.where(desirable, *self._weights)
            losses = weights * kto(ratios, desirable, point, self._config.beta)
            yield losses.sum() * self._steps / len(self._judged)

    def tokens(self, epoch: int, step: int) -> int:
        """Count the tokens of a step's pairs and judged answers, prompts included."""
        pairs = step_items(self._pairs, epoch, step, self._steps, self._config.seed)
        judged = step_items(self._judged, epoch, step, self._steps, self._config.seed)
        return sum(len(answer.example.ids) for pair in pairs for answer in pair) + sum(
            len(answer.example.ids) for answer, _, _ in judged
        )

    def _mismatched_ratios(self, model: Any, answers: Sequence[ReferenceAnswer]) -> torch.Tensor:
        with torch.no_grad():
            ratios = [
                log_ratios(model, chunk, self._device)
                for chunk in _chunks(answers, self._config.batch_size)
            ]
        return torch.cat(ratios) if ratios else torch.zeros(0, device=self._device)

    def _with_reference(
        self, model: Any, examples: Sequence[EncodedExample]
    ) -> list[ReferenceAnswer]:
        with torch.no_grad():
            parts = [
                answer_likelihoods(model, chunk, self._device)
                for chunk in _chunks(examples, self._config.batch_size)
            ]
        references = torch.cat(parts).tolist() if parts else []
        return [
            ReferenceAnswer(example, reference)
            for example, reference in zip(examples, references, strict=True)
        ]


def mismatch_answers(examples: Sequence[EncodedExample]) -> list[EncodedExample]:
    """Combine each prompt with the answer of the next example; empty for a single example."""
    if len(examples) < 2:
        return []
    shifted = [*examples[1:], examples[0]]
    return [
        EncodedExample(
            (*example.ids[: example.answer_start], *next_example.ids[next_example.answer_start :]),
            example.answer_start,
        )
        for example, next_example in zip(examples, shifted, strict=True)
    ]


def step_items(items: Sequence[T], epoch: int, step: int, steps: int, seed: int) -> list[T]:
    """Select the items of one step of an epoch of `steps`. Every item belongs to one step, and step
    sizes differ by at most one.
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
