"""Evaluation of a model: log-likelihoods of reference answers, and greedy generation."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch

from services.trainer.data.tokenization import EncodedExample, Vocabulary
from services.trainer.errors import LOWER_LEARNING_RATE, RunFailed
from services.trainer.protocol import GreedyAnswer
from services.trainer.training.likelihood import collate, log_likelihoods
from shared.events import ProbeToken

MAX_TOKENS_PER_BATCH = 2048
"""Maximum tokens in one forward pass, including padding: enough to keep the cores busy, few enough
to report progress every few seconds.
"""

MAX_PROMPTS_PER_BATCH = 32
"""Maximum prompts answered together: each token of all of them needs one read of the weights."""

MAX_CACHED_TOKENS = 16_384
"""Maximum tokens in the key-value cache: long prompts are answered in smaller batches."""


class _GeneratedToken(NamedTuple):
    id: int
    logprob: float
    lead: float


def score(
    model: Any, examples: Sequence[EncodedExample], device: str, on_progress: Callable[[int], None]
) -> list[float]:
    """Compute the mean log-likelihood per answer token of each example, in nats, in the order
    given.

    `on_progress` receives the number of scored examples. Raises RunFailed if a score is not finite.
    """
    scores: list[float] = [0.0] * len(examples)
    scored = 0
    for indices in _batches(examples):
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


def _batches(examples: Sequence[EncodedExample]) -> Iterator[list[int]]:
    """Yield the indices of examples, longest first, in batches that pad to at most
    `MAX_TOKENS_PER_BATCH`.
    """
    order = sorted(range(len(examples)), key=lambda index: -len(examples[index].ids))
    while order:
        size = max(1, MAX_TOKENS_PER_BATCH // len(examples[order[0]].ids))
        yield order[:size]
        order = order[size:]


def generate_greedily(
    model: Any,
    vocabulary: Vocabulary,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    device: str,
    on_progress: Callable[[int], None],
) -> list[GreedyAnswer]:
    """Generate the most likely continuation of each prompt, token by token, up to the end of the
    turn, which is not included.

    `on_progress` receives the number of answered prompts. Raises RunFailed if a probability is not
    finite.
    """
    answers: list[GreedyAnswer] = []
    longest = max(map(len, prompts), default=0) + max_new_tokens
    size = max(1, min(MAX_PROMPTS_PER_BATCH, MAX_CACHED_TOKENS // longest))
    for start in range(0, len(prompts), size):
        answers += _generate_batch(
            model, vocabulary, prompts[start : start + size], max_new_tokens, device
        )
        on_progress(len(answers))
    return answers


def _generate_batch(
    model: Any,
    vocabulary: Vocabulary,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    device: str,
) -> list[GreedyAnswer]:
    """Generate answers for prompts padded on the left; mask and positions mark where each prompt
    begins.

    Rows whose answers have ended are removed once they are half of the batch.
    """
    length = max(map(len, prompts))
    ids = torch.tensor(
        [[0] * (length - len(prompt)) + list(prompt) for prompt in prompts], device=device
    )
    mask = torch.tensor(
        [[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device
    )
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    cache = None
    answers: list[list[_GeneratedToken]] = [[] for _ in prompts]
    ended: set[int] = set()
    rows = list(range(len(prompts)))
    with torch.inference_mode():
        for _ in range(max_new_tokens):
            output = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache = output.past_key_values
            best = output.logits[:, -1].float().log_softmax(-1).topk(2)
            for slot, row in enumerate(rows):
                if row in ended:
                    continue
                logprob, runner_up = best.values[slot].tolist()
                token = int(best.indices[slot, 0])
                if not math.isfinite(logprob):
                    raise RunFailed("the candidate's logits are not finite", LOWER_LEARNING_RATE)
                if token in vocabulary.end_tokens:
                    ended.add(row)
                else:
                    answers[row].append(_GeneratedToken(token, logprob, logprob - runner_up))
            if len(ended) == len(prompts):
                break
            ids, positions = best.indices[:, :1], positions[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
            active = [slot for slot, row in enumerate(rows) if row not in ended]
            if 2 * len(active) <= len(rows):
                rows = [rows[slot] for slot in active]
                selection = torch.tensor(active, device=device)
                ids, positions, mask = ids[selection], positions[selection], mask[selection]
                cache.batch_select_indices(selection)
    return [_greedy_answer(vocabulary, answer) for answer in answers]


def _greedy_answer(vocabulary: Vocabulary, generated: Sequence[_GeneratedToken]) -> GreedyAnswer:
    return GreedyAnswer(
        text=vocabulary.decode_answer([token.id for token in generated]),
        tokens=tuple(
            ProbeToken(
                text=vocabulary.decode_token(token.id), logprob=token.logprob, lead=token.lead
            )
            for token in generated
        ),
    )
