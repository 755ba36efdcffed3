"""Greedy generation: the most likely continuation of each prompt, token by token.

A faster model can draft the answers. The model itself then reads each draft in one pass and keeps
it up to the first token that it would not have chosen (Leviathan et al. 2023, arXiv:2211.17192,
here without sampling), so the answers are the same as if it had generated them alone.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from services.trainer.data.tokenization import EncodedExample, Vocabulary
from services.trainer.errors import LOWER_LEARNING_RATE, RunFailed
from services.trainer.protocol import GreedyAnswer
from services.trainer.training.likelihood import collate, most_likely_tokens
from services.trainer.training.scoring import length_batches
from shared.events import ProbeToken

MAX_PROMPTS_PER_BATCH = 32
"""Maximum prompts answered together: each token of all of them needs one read of the weights."""

MAX_CACHED_TOKENS = 16_384
"""Maximum tokens in the key-value cache: long prompts are answered in smaller batches."""


class GeneratedToken(NamedTuple):
    """A token with its log-probability, and its lead over the second most likely one, in nats."""

    id: int
    logprob: float
    lead: float


@dataclass(frozen=True)
class Continuation:
    """Tokens that a model generated after a prompt. `end` is the end-of-turn token that it stopped
    at, None if it reached the maximum length.
    """

    tokens: tuple[GeneratedToken, ...]
    end: int | None

    @property
    def ids(self) -> tuple[int, ...]:
        """All token ids, with the end."""
        ids = tuple(token.id for token in self.tokens)
        return ids if self.end is None else (*ids, self.end)

    def answer(self, vocabulary: Vocabulary) -> GreedyAnswer:
        """Return the answer, without its end."""
        return GreedyAnswer(
            text=vocabulary.decode_answer([token.id for token in self.tokens]),
            tokens=tuple(
                ProbeToken(
                    text=vocabulary.decode_token(token.id), logprob=token.logprob, lead=token.lead
                )
                for token in self.tokens
            ),
        )


def generate_greedily(
    model: Any,
    end_tokens: Sequence[int],
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    device: str,
    on_progress: Callable[[int], None],
) -> list[Continuation]:
    """Generate the most likely continuation of each prompt up to the end of the turn.

    `on_progress` receives the number of answered prompts. Raises RunFailed if a probability is not
    finite.
    """
    continuations: list[Continuation] = []
    longest = max(map(len, prompts), default=0) + max_new_tokens
    size = max(1, min(MAX_PROMPTS_PER_BATCH, MAX_CACHED_TOKENS // longest))
    for start in range(0, len(prompts), size):
        continuations += _generate_batch(
            model, end_tokens, prompts[start : start + size], max_new_tokens, device
        )
        on_progress(len(continuations))
    return continuations


def confirm_drafts(
    model: Any,
    end_tokens: Sequence[int],
    prompts: Sequence[Sequence[int]],
    drafts: Sequence[Continuation],
    max_new_tokens: int,
    device: str,
    on_progress: Callable[[int], None],
) -> list[Continuation]:
    """Return what `generate_greedily` would for these prompts, from another model's drafts for
    them. Raises RunFailed if a probability is not finite.
    """
    examples = [
        EncodedExample((*prompt, *draft.ids), len(prompt))
        for prompt, draft in zip(prompts, drafts, strict=True)
    ]
    confirmed = list(drafts)
    read = 0
    for indices in length_batches(examples):
        with torch.inference_mode():
            best = most_likely_tokens(model, collate([examples[i] for i in indices], device), 2)
        answer_tokens = [examples[index].answer_tokens for index in indices]
        choices = zip(*(torch.split(part, answer_tokens) for part in best), strict=True)
        for index, (logprobs, tokens) in zip(indices, choices, strict=True):
            confirmed[index] = _confirmed(
                drafts[index], logprobs.tolist(), tokens.tolist(), end_tokens, max_new_tokens
            )
        read += len(indices)
        on_progress(read)
    unfinished = [
        index
        for index, start in enumerate(confirmed)
        if start.end is None and len(start.tokens) < max_new_tokens
    ]
    if not unfinished:
        return confirmed
    rests = generate_greedily(
        model,
        end_tokens,
        [(*prompts[index], *confirmed[index].ids) for index in unfinished],
        max_new_tokens - min(len(confirmed[index].tokens) for index in unfinished),
        device,
        lambda answered: None,
    )
    for index, rest in zip(unfinished, rests, strict=True):
        tokens = (*confirmed[index].tokens, *rest.tokens)
        end = rest.end if len(tokens) < max_new_tokens else None
        confirmed[index] = Continuation(tokens[:max_new_tokens], end)
    return confirmed


def _confirmed(
    draft: Continuation,
    logprobs: Sequence[Sequence[float]],
    tokens: Sequence[Sequence[int]],
    end_tokens: Sequence[int],
    max_new_tokens: int,
) -> Continuation:
    """Return the draft up to the first token that the model would not have chosen, and that which
    it would have chosen instead. `logprobs` and `tokens` are the model's two best at each position.
    """
    chosen: list[GeneratedToken] = []
    for drafted, (logprob, runner_up), (token, _) in zip(draft.ids, logprobs, tokens, strict=True):
        _require_finite(logprob)
        if token in end_tokens:
            return Continuation(tuple(chosen), token)
        chosen.append(GeneratedToken(token, logprob, logprob - runner_up))
        if token != drafted or len(chosen) == max_new_tokens:
            break
    return Continuation(tuple(chosen), None)


def _generate_batch(
    model: Any,
    end_tokens: Sequence[int],
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    device: str,
) -> list[Continuation]:
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
    answers: list[list[GeneratedToken]] = [[] for _ in prompts]
    ended: dict[int, int] = {}
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
                _require_finite(logprob)
                if token in end_tokens:
                    ended[row] = token
                else:
                    answers[row].append(GeneratedToken(token, logprob, logprob - runner_up))
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
    return [Continuation(tuple(answer), ended.get(row)) for row, answer in enumerate(answers)]


def _require_finite(logprob: float) -> None:
    if not math.isfinite(logprob):
        raise RunFailed("the candidate's logits are not finite", LOWER_LEARNING_RATE)
