"""Scores and greedy answers match those of single examples, for any batching."""

import pytest
import torch

from services.trainer.errors import RunFailed
from services.trainer.gate.evaluation_suite import passes
from services.trainer.training import scoring
from services.trainer.training.scoring import generate_greedily, score
from shared.config.models import RegressionPrompt
from tests.trainer.tiny import END, EXAMPLES, VOCABULARY, tiny_model


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


@pytest.mark.parametrize(("seed", "unended"), [(5, 6), (8, 1)])
def test_greedy_answers_match_single_prompts(seed: int, unended: int) -> None:
    """The reference uses no cache and no padding: it takes the most likely token, repeatedly, until
    the end of the turn. Most answers of the second model end early, so that rows are removed
    repeatedly.
    """
    model = tiny_model(seed)
    prompts = [example.ids[: example.answer_start] for example in EXAMPLES]
    together = generate_greedily(model, VOCABULARY, prompts, 12, "cpu", ignore_count)
    assert sum(len(answer.tokens) == 12 for answer in together) == unended
    for prompt, answer in zip(prompts, together, strict=True):
        ids = list(prompt)
        expected: list[tuple[str, float, float]] = []
        while len(expected) < 12:
            values, tokens = (
                model(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1).topk(2)
            )
            token = int(tokens[0])
            if token == END:
                break
            expected.append(
                (
                    VOCABULARY.tokenizer.decode([token], clean_up_tokenization_spaces=False),
                    float(values[0]),
                    float(values[0] - values[1]),
                )
            )
            ids.append(token)
        assert [token.text for token in answer.tokens] == [text for text, _, _ in expected]
        assert [token.logprob for token in answer.tokens] == pytest.approx(
            [logprob for _, logprob, _ in expected], abs=1e-4
        )
        assert [token.lead for token in answer.tokens] == pytest.approx(
            [lead for _, _, lead in expected], abs=1e-4
        )


def test_non_finite_logits_fail() -> None:
    model = tiny_model()
    model.get_output_embeddings().weight.data[:] = torch.nan
    with pytest.raises(RunFailed, match="finite"):
        score(model, EXAMPLES, "cpu", ignore_count)
    with pytest.raises(RunFailed, match="finite"):
        generate_greedily(model, VOCABULARY, [(1, 2)], 3, "cpu", ignore_count)


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
