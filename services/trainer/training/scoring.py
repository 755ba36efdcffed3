"""Evaluation of a model: log-likelihoods of reference answers."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from services.trainer.data.tokenization import EncodedExample
from services.trainer.errors import LOWER_LEARNING_RATE, RunFailed
from services.trainer.training.likelihood import collate, log_likelihoods

MAX_TOKENS_PER_BATCH = 2048
"""Maximum tokens in one forward pass, including padding: enough to keep the cores busy, few enough
to report progress every few seconds.
"""


def score(
    model: Any, examples: Sequence[EncodedExample], device: str, on_progress: Callable[[int], None]
) -> list[float]:
    """Compute the mean log-likelihood per answer token of each example, in nats, in the order
    given.

    `on_progress` receives the number of scored examples. Raises RunFailed if a score is not finite.
    """
    scores: list[float] = [0.0] * len(examples)
    scored = 0
    for indices in length_batches(examples):
        batch = [examples[index] for index in indices]
        with torch.inference_mode():
            values = log_likelihoods(model, collate(batch, device))
        answers = torch.split(values, [example.answer_tokens for example in batch])
        for index, likelihoods in zip(indices, answers, strict=True):
            scores[index] = float(likelihoods.mean())
            if not math.isfinite(scores[index]):
                raise RunFailed("the candidate's logits are not finite", LOWER_LEARNING_RATE)
        scored += len(indices)
        on_progress(scored)
    return scores


def length_batches(examples: Sequence[EncodedExample]) -> Iterator[list[int]]:
    """Yield the indices of examples, longest first, in batches that pad to at most
    `MAX_TOKENS_PER_BATCH`.
    """
    order = sorted(range(len(examples)), key=lambda index: -len(examples[index].ids))
    while order:
        size = max(1, MAX_TOKENS_PER_BATCH // len(examples[order[0]].ids))
        yield order[:size]
        order = order[size:]
