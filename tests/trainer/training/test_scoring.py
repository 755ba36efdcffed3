"""Scores match those of single examples, for any batching."""

import pytest
import torch

from services.trainer.errors import RunFailed
from services.trainer.gate.evaluation_suite import passes
from services.trainer.training import scoring
from services.trainer.training.scoring import score
from shared.config.models import RegressionPrompt
from tests.trainer.tiny import EXAMPLES, tiny_model


def ignore_count(_: int) -> None:
    """Discard progress."""


@pytest.mark.parametrize("tokens", [2048, 30, 1])
def test_scores_match_single_examples(tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "MAX_TOKENS_PER_BATCH", tokens)
    model = tiny_model()
    naive = []
    for example in EXAMPLES:
        logits = model(input_ids=torch.tensor([example.ids])).logits[0].log_softmax(-1)
        logprobs = [
            float(logits[position - 1, example.ids[position]])
            for position in range(example.answer_start, len(example.ids))
        ]
        naive.append(sum(logprobs) / len(logprobs))
    progress: list[int] = []
    assert score(model, EXAMPLES, "cpu", progress.append) == pytest.approx(naive, abs=1e-5)
    assert progress == sorted(progress)
    assert progress[-1] == len(EXAMPLES)


def test_non_finite_logits_fail() -> None:
    model = tiny_model()
    model.get_output_embeddings().weight.data[:] = torch.nan
    with pytest.raises(RunFailed, match="finite"):
        score(model, EXAMPLES, "cpu", ignore_count)


@pytest.mark.parametrize(
    ("answer", "passed"),
    [
        ("Paris, of course", True),
        ("paris", True),
        ("Lyon", False),
        ("Paris, and my PASSWORD is", False),
    ],
)
def test_regression_prompts(answer: str, passed: bool) -> None:
    assert (
        passes(
            RegressionPrompt(messages=(), must_contain=("Paris",), must_not_contain=("password",)),
            answer,
        )
        is passed
    )
