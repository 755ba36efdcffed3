"""Answers of the base itself: references of the regression set, and rehearsal examples against
forgetting. Generated once and cached on disk.
"""

from collections.abc import Sequence

from services.trainer.data.training_set import Sample
from services.trainer.protocol import Messages
from services.trainer.run_folder import CachedAnswers, WorkFolder
from services.trainer.worker.client import OnProgress
from services.trainer.worker.model_session import EvaluatedModel, ModelSession
from shared.identity import identity

BASE = EvaluatedModel("base", None)

MAX_ANSWER_TOKENS = 48
"""Maximum tokens of a greedy answer: enough for the checks of a regression prompt, few enough that
answers cost less than scores.
"""


async def base_answers(
    prompts: Sequence[Messages],
    session: ModelSession,
    work: WorkFolder,
    max_tokens: int,
    on_progress: OnProgress,
) -> list[Sample]:
    """Return the prompts that the base answers at all, each with its answer. Prompts that its chat
    template refuses are left out. Raises RunFailed.
    """
    refused = (await session.check_prompts(prompts)).refused
    prompts = [messages for messages in prompts if messages not in refused]
    if not prompts:
        return []
    turns = [f"{message.role}|{message.content}" for messages in prompts for message in messages]
    key = identity(
        session.base.digest,
        max_tokens,
        MAX_ANSWER_TOKENS,
        # Earlier versions joined the texts of tokens, and set no variables.
        session.template.model_dump_json(),
        *(len(messages) for messages in prompts),
        *turns,
    )
    cached = work.cached_answers(key)
    if cached is None:
        answers, _ = await session.generate(
            BASE, max_tokens, MAX_ANSWER_TOKENS, on_progress, probes=prompts
        )
        cached = CachedAnswers(answers=tuple(answer.text for answer in answers))
        work.write_cached_answers(key, cached)
    return [
        Sample(messages=messages, answer=answer)
        for messages, answer in zip(prompts, cached.answers, strict=True)
        if answer
    ]
