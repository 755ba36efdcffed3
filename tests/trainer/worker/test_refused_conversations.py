"""The training process trains and evaluates conversations that its base's template refuses as they
are, and names the ones that it cannot use.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog

from services.trainer.data.objective_data import ObjectiveData
from services.trainer.data.training_set import Sample
from services.trainer.errors import RunFailed
from services.trainer.gate.base_answers import BASE
from services.trainer.machine.bases import LocalBase
from services.trainer.worker.client import TrainingProcess, ignore_progress
from services.trainer.worker.model_session import ModelSession
from shared.config.training import TrainingConfig
from shared.events import Message
from tests.support.tickets import DIGEST
from tests.trainer.data.chat_templates import MISTRAL
from tests.trainer.tiny import save_tiny

USER, ASSISTANT = Message(role="user", content="a"), Message(role="assistant", content="b")
TWO_QUESTIONS, GREETED = (USER, USER), (ASSISTANT, USER)
TOOL_TURN = (USER, ASSISTANT, Message(role="tool", content="4"))
CONFIG = TrainingConfig(rank=4, batch_size=2, epochs=1, precision="fp32", layers=None)


@pytest.fixture
async def session(tmp_path: Path) -> AsyncIterator[ModelSession]:
    save_tiny(tmp_path / "tiny", MISTRAL)
    process = TrainingProcess(1, structlog.stdlib.get_logger())
    try:
        yield ModelSession(process, LocalBase(tmp_path / "tiny", "tiny", DIGEST), "fp32")
    finally:
        await process.stop()


async def test_refused_conversations_are_adapted_or_named(
    session: ModelSession, tmp_path: Path
) -> None:
    check = await session.check_prompts([(USER,), TWO_QUESTIONS, GREETED, TOOL_TURN])
    assert list(check.refused) == [TOOL_TURN]
    assert "chat template refuses it: conversation roles must alternate" in check.refused[TOOL_TURN]
    assert check.inexact == {TWO_QUESTIONS, GREETED}

    adapted = [Sample(messages=prompt, answer="c") for prompt in (TWO_QUESTIONS, GREETED)]
    trained = await session.train(
        ObjectiveData(adapted), CONFIG, None, tmp_path / "adapter", ignore_progress
    )
    assert trained.steps == 1
    assert len(await session.score(BASE, adapted, 64, ignore_progress)) == 2

    refused = [Sample(messages=TOOL_TURN, answer="c")]
    with pytest.raises(RunFailed, match="chat template refuses it"):
        await session.score(BASE, refused, 64, ignore_progress)
