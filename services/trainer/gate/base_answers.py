"""How the base itself answers: what retention is judged by, and what is rehearsed against
forgetting. Asked once, kept on disk.
"""

from collections.abc import Sequence

from services.trainer.data.training_set import Sample
from services.trainer.protocol import Greedy, Messages
from services.trainer.run_folder import References, Runs
from services.trainer.worker.client import Heard
from services.trainer.worker.session import Bench, Subject
from shared.config.model_file import Models
from shared.events.hyperparameters import Lane
from shared.identity import identity

BASE = Subject("base", None)

ANSWER_TOKENS = 48
"""Tokens of a greedy answer at most: enough for a canary to sing, few enough that answers cost less
than scores.
"""


async def own_answers(
    prompts: Sequence[Messages], bench: Bench, runs: Runs, max_tokens: int, heard: Heard
) -> list[Sample]:
    """The prompts to which the base says something, with what it says. Raises RunFailed."""
    if not prompts:
        return []
    said = [f"{message.role}|{message.content}" for messages in prompts for message in messages]
    key = identity(
        bench.base.digest,
        max_tokens,
        ANSWER_TOKENS,
        *(len(messages) for messages in prompts),
        *said,
    )
    references = runs.references(key)
    if references is None:
        answers, _ = await bench.answer(BASE, max_tokens, ANSWER_TOKENS, heard, probes=prompts)
        references = References(answers=tuple(text_of(answer) for answer in answers))
        runs.write_references(key, references)
    return [
        Sample(messages=messages, answer=answer)
        for messages, answer in zip(prompts, references.answers, strict=True)
        if answer
    ]


async def rehearsed(
    models: Models, model: str, lane: Lane, max_tokens: int, bench: Bench, runs: Runs, heard: Heard
) -> list[Sample]:
    """What every run of a lane learns besides its batch, so that what the base can do is not
    forgotten. Raises RunFailed.
    """
    return await own_answers(
        [prompt.messages for prompt in models.rehearsal(model, lane)],
        bench,
        runs,
        max_tokens,
        heard,
    )


def text_of(answer: Greedy) -> str:
    return "".join(token.text for token in answer)
