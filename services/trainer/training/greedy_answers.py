"""Greedy answers of a base with an adapter: exact ones, and ones that may round."""

from collections.abc import Callable, Sequence
from pathlib import Path

from services.trainer.training.base_model import LoadedBase, with_adapter
from services.trainer.training.generation import (
    Continuation,
    confirm_drafts,
    generate_greedily,
)

Prompt = tuple[int, ...]
"""Token ids of a prompt."""


def greedy_answers(
    base: LoadedBase,
    adapter: Path | None,
    exact: Sequence[Prompt],
    fast: Sequence[Prompt],
    max_new_tokens: int,
    on_progress: Callable[[int, int], None],
) -> tuple[list[Continuation], list[Continuation]]:
    """Answer the `exact` prompts as `base.eval_model` does, and the `fast` ones as
    `base.generation_model` does, which also drafts the exact answers.

    `on_progress` receives the number of answers, and their total. Raises RunFailed if a probability
    is not finite.
    """
    prompts = list(dict.fromkeys((*exact, *fast)))
    exact_prompts = list(dict.fromkeys(exact))
    has_drafts = base.generation_model is not base.eval_model and bool(exact_prompts)
    total = len(prompts) + (len(exact_prompts) if has_drafts else 0)
    with with_adapter(base.generation_model, adapter) as model:
        answers = dict(
            zip(
                prompts,
                generate_greedily(
                    model,
                    base.vocabulary.end_tokens,
                    prompts,
                    max_new_tokens,
                    base.device,
                    lambda done: on_progress(done, total),
                ),
                strict=True,
            )
        )
    confirmed = answers
    if has_drafts:
        with with_adapter(base.eval_model, adapter) as model:
            confirmed = dict(
                zip(
                    exact_prompts,
                    confirm_drafts(
                        model,
                        base.vocabulary.end_tokens,
                        exact_prompts,
                        [answers[prompt] for prompt in exact_prompts],
                        max_new_tokens,
                        base.device,
                        lambda done: on_progress(len(prompts) + done, total),
                    ),
                    strict=True,
                )
            )
    return [confirmed[prompt] for prompt in exact], [answers[prompt] for prompt in fast]
