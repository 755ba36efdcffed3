"""How the base itself answers: what retention is judged by, and what is rehearsed against
forgetting. Asked once, kept on disk.
"""

from collections.abc import Sequence

from services.trainer.data.training_set import Sample
from services.trainer.protocol import GreedyAnswer, Messages
from services.trainer.run_folder import CachedAnswers, RunFolders
from services.trainer.worker.client import OnProgress
from services.trainer.worker.model_session import EvaluatedModel, ModelSession
from shared.config.model_file import Models
from shared.events.hyperparameters import Lane
from shared.identity import identity

BASE = EvaluatedModel("base", None)

MAX_ANSWER_TOKENS = 48
"""Tokens of a greedy answer at most: enough for a canary to sing, few enough that answers cost less
than scores.
"""


async def base_answers(
    prompts: Sequence[Messages],
    bench: ModelSession,
    runs: RunFolders,
    max_tokens: int,
    heard: OnProgress,
) -> list[Sample]:
    """The prompts to which the base says something, with what it says. Raises RunFailed."""
    if not prompts:
        return []
    said = [f"{message.role}|{message.content}" for messages in prompts for message in messages]
    key = identity(
        bench.base.digest,
        max_tokens,
        MAX_ANSWER_TOKENS,
        *(len(messages) for messages in prompts),
        *said,
    )
    references = runs.cached_answers(key)
    if references is None:
        answers, _ = await bench.generate(
            BASE, max_tokens, MAX_ANSWER_TOKENS, heard, probes=prompts
        )
        references = CachedAnswers(answers=tuple(text_of(answer) for answer in answers))
        runs.write_cached_answers(key, references)
    return [
        Sample(messages=messages, answer=answer)
        for messages, answer in zip(prompts, references.answers, strict=True)
        if answer
    ]


async def rehearsal_samples(
    models: Models,
    model: str,
    lane: Lane,
    max_tokens: int,
    bench: ModelSession,
    runs: RunFolders,
    heard: OnProgress,
) -> list[Sample]:
    """What every run of a lane learns besides its batch, so that what the base can do is not
    forgotten. Raises RunFailed.
    """
    return await base_answers(
        [prompt.messages for prompt in models.rehearsal(model, lane)],
        bench,
        runs,
        max_tokens,
        heard,
    )


def text_of(answer: GreedyAnswer) -> str:
    return "".join(token.text for token in answer)
