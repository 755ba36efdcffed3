"""Evaluation agrees with what is computed one example at a time, whatever it is batched with."""

import pytest
import torch

from services.trainer.errors import RunFailed
from services.trainer.gate.evaluation_suite import passes
from services.trainer.training import scoring as evaluation
from services.trainer.training.scoring import generate_greedily, score
from shared.config.model_file import RegressionPrompt
from tests.trainer.tiny import END, EXAMPLES, VOCABULARY, tiny_model


def nothing(_: int) -> None:
    """Progress that no test looks at."""


@pytest.mark.parametrize("tokens", [2048, 30, 1])
def test_scores_are_those_of_one_example_at_a_time(
    tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "TOKENS_PER_BATCH", tokens)
    model = tiny_model()
    naive = []
    for example in EXAMPLES:
        logits = model(input_ids=torch.tensor([example.ids])).logits[0].log_softmax(-1)
        each = [
            float(logits[place - 1, example.ids[place]])
            for place in range(example.answer_start, len(example.ids))
        ]
        naive.append(sum(each) / len(each))
    done: list[int] = []
    assert score(model, EXAMPLES, "cpu", done.append) == pytest.approx(naive, abs=1e-5)
    assert done == sorted(done)
    assert done[-1] == len(EXAMPLES)


@pytest.mark.parametrize(("seed", "unended"), [(5, 6), (8, 1)])
def test_greedy_answers_are_those_of_one_prompt_at_a_time(seed: int, unended: int) -> None:
    """Without a cache and without padding: the most likely token, again and again, until the end of
    the turn. Of the second model's answers most end early, so that rows leave again and again.
    """
    model = tiny_model(seed)
    prompts = [example.ids[: example.answer_start] for example in EXAMPLES]
    together = generate_greedily(model, VOCABULARY, prompts, 12, "cpu", nothing)
    assert sum(len(answer) == 12 for answer in together) == unended
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
        assert [token.text for token in answer] == [text for text, _, _ in expected]
        assert [token.logprob for token in answer] == pytest.approx(
            [logprob for _, logprob, _ in expected], abs=1e-4
        )
        assert [token.lead for token in answer] == pytest.approx(
            [lead for _, _, lead in expected], abs=1e-4
        )


def test_logits_that_are_not_finite_are_refused() -> None:
    model = tiny_model()
    model.get_output_embeddings().weight.data[:] = torch.nan
    with pytest.raises(RunFailed, match="finite"):
        score(model, EXAMPLES, "cpu", nothing)
    with pytest.raises(RunFailed, match="finite"):
        generate_greedily(model, VOCABULARY, [(1, 2)], 3, "cpu", nothing)


@pytest.mark.parametrize(
    ("answer", "passed"),
    [
        ("Paris, of course", True),
        ("paris", True),
        ("Lyon", False),
        ("Paris, and my PASSWORD is", False),
    ],
)
def test_canaries(answer: str, passed: bool) -> None:
    assert (
        passes(
            RegressionPrompt(messages=(), must_contain=("Paris",), must_not_contain=("password",)),
            answer,
        )
        is passed
    )
