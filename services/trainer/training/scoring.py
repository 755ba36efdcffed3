"""What a model knows and says: likelihoods of reference answers, and greedy answers."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from services.trainer.data.tokenization import EncodedExample, Vocabulary
from services.trainer.errors import LOWER_LEARNING_RATE, RunFailed
from services.trainer.training.likelihood import collate, log_likelihoods
from shared.events import ProbeToken

MAX_TOKENS_PER_BATCH = 2048
"""Tokens in one forward pass at most, padding counted: enough to keep cores busy, little enough to
report progress every few seconds.
"""

MAX_PROMPTS_PER_BATCH = 32
"""Greedy answers in hand at a time, at most: what is read for one token, the weights, serves all of
them.
"""

MAX_CACHED_TOKENS = 16_384
"""Tokens whose keys and values are kept meanwhile, at most: long prompts are answered fewer at a
time.
"""


def score(
    model: Any, examples: Sequence[EncodedExample], device: str, on_progress: Callable[[int], None]
) -> list[float]:
    """Mean log-likelihood per answer token of each example, in nats, in the order given; `report`
    hears how many are done.

    Raises RunFailed when one is not a finite number.
    """
    scores: list[float] = [0.0] * len(examples)
    done = 0
    for places in _batches(examples):
        chosen = [examples[place] for place in places]
        with torch.inference_mode():
            values = log_likelihoods(model, collate(chosen, device))
        each = torch.split(values, [example.answer_tokens for example in chosen])
        for place, own in zip(places, each, strict=True):
            scores[place] = float(own.mean())
            if not math.isfinite(scores[place]):
                raise RunFailed("the candidate's logits are not finite", LOWER_LEARNING_RATE)
        done += len(places)
        on_progress(done)
    return scores


def _batches(examples: Sequence[EncodedExample]) -> Iterator[list[int]]:
    """Places of examples, longest first, in batches that pad to at most `TOKENS_PER_BATCH`."""
    order = sorted(range(len(examples)), key=lambda place: -len(examples[place].ids))
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
) -> list[tuple[ProbeToken, ...]]:
    """The most likely continuation of each prompt, token by token, up to the end of the turn, which
    is not part of it.

    Raises RunFailed when a probability is not a finite number.
    """
    answers: list[tuple[ProbeToken, ...]] = []
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
) -> list[tuple[ProbeToken, ...]]:
    """Prompts stand flush right in a rectangle; mask and positions tell the model where each
    begins. Rows whose answers have ended leave it when they are half of them.
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
    answers: list[list[ProbeToken]] = [[] for _ in prompts]
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
            for place, row in enumerate(rows):
                if row in ended:
                    continue
                logprob, runner_up = best.values[place].tolist()
                token = int(best.indices[place, 0])
                if not math.isfinite(logprob):
                    raise RunFailed("the candidate's logits are not finite", LOWER_LEARNING_RATE)
                if token in vocabulary.end_tokens:
                    ended.add(row)
                else:
                    answers[row].append(
                        ProbeToken(
                            text=_text(vocabulary, token), logprob=logprob, lead=logprob - runner_up
                        )
                    )
            if len(ended) == len(prompts):
                break
            ids, positions = best.indices[:, :1], positions[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
            kept = [place for place, row in enumerate(rows) if row not in ended]
            if 2 * len(kept) <= len(rows):
                rows = [rows[place] for place in kept]
                chosen = torch.tensor(kept, device=device)
                ids, positions, mask = ids[chosen], positions[chosen], mask[chosen]
                cache.batch_select_indices(chosen)
    return [tuple(answer) for answer in answers]


def _text(vocabulary: Vocabulary, token: int) -> str:
    return str(vocabulary.tokenizer.decode([token], clean_up_tokenization_spaces=False))
