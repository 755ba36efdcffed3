"""Greedy answers match those of single prompts, for any batching and with any drafts."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from services.trainer.errors import RunFailed
from services.trainer.training import scoring
from services.trainer.training.generation import (
    Continuation,
    GeneratedToken,
    confirm_drafts,
    generate_greedily,
)
from tests.trainer.tiny import END, EXAMPLES, VOCABULARY, tiny_model

PROMPTS = [example.ids[: example.answer_start] for example in EXAMPLES]
LENGTH = 12


def ignore_count(_: int) -> None:
    """Discard progress."""


@pytest.mark.parametrize(("seed", "unended"), [(5, 6), (8, 1)])
def test_greedy_answers_match_single_prompts(seed: int, unended: int) -> None:
    """The reference uses no cache and no padding: it takes the most likely token, repeatedly, until
    the end of the turn. Most answers of the second model end early, so that rows are removed
    repeatedly.
    """
    model = tiny_model(seed)
    together = [
        answer.answer(VOCABULARY)
        for answer in generate_greedily(model, [END], PROMPTS, LENGTH, "cpu", ignore_count)
    ]
    assert sum(len(answer.tokens) == LENGTH for answer in together) == unended
    for prompt, answer in zip(PROMPTS, together, strict=True):
        ids = list(prompt)
        expected: list[tuple[str, float, float]] = []
        while len(expected) < LENGTH:
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


def generated(model: Any) -> list[Continuation]:
    return generate_greedily(model, [END], PROMPTS, LENGTH, "cpu", ignore_count)


def confirmed(model: Any, drafts: Sequence[Continuation]) -> list[Continuation]:
    return confirm_drafts(model, [END], PROMPTS, drafts, LENGTH, "cpu", ignore_count)


def require_equal(found: Sequence[Continuation], expected: Sequence[Continuation]) -> None:
    assert [answer.ids for answer in found] == [answer.ids for answer in expected]
    for some, other in zip(found, expected, strict=True):
        for token, reference in zip(some.tokens, other.tokens, strict=True):
            assert token == pytest.approx(reference, abs=1e-4)


@pytest.mark.parametrize("tokens", [2048, 30])
@pytest.mark.parametrize("drafting", [5, 8, 13])
def test_drafts_do_not_change_the_answers(
    drafting: int, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers of the drafting models have other tokens and other ends."""
    monkeypatch.setattr(scoring, "MAX_TOKENS_PER_BATCH", tokens)
    model, drafts = tiny_model(8), generated(tiny_model(drafting))
    expected = generated(model)
    same = [draft.ids == answer.ids for draft, answer in zip(drafts, expected, strict=True)]
    assert all(same) == (drafting == 8)
    require_equal(confirmed(model, drafts), expected)


@pytest.mark.parametrize("kept", range(LENGTH))
def test_a_draft_may_be_wrong_at_any_token(kept: int) -> None:
    """Each draft is the right answer up to a token, then another token or a premature end."""
    model = tiny_model(5)
    expected = generated(model)
    wrong = GeneratedToken(0, 0.0, 0.0)
    for end in (None, END):
        drafts = [
            Continuation((*answer.tokens[:kept], *([wrong] if end is None else [])), end)
            for answer in expected
        ]
        require_equal(confirmed(model, drafts), expected)


def test_right_drafts_take_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(8)
    expected = generated(model)
    passes: list[torch.Size] = []
    decoder = model.get_decoder()
    forward = decoder.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        passes.append(kwargs["input_ids"].shape)
        return forward(*args, **kwargs)

    monkeypatch.setattr(decoder, "forward", counted)
    require_equal(confirmed(model, expected), expected)
    assert len(passes) == 1


def test_progress_counts_read_drafts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "MAX_TOKENS_PER_BATCH", 30)
    model = tiny_model(8)
    counts: list[int] = []
    confirm_drafts(model, [END], PROMPTS, generated(model), LENGTH, "cpu", counts.append)
    assert counts == sorted(counts)
    assert len(counts) > 1
    assert counts[-1] == len(PROMPTS)


def test_non_finite_logits_fail() -> None:
    model = tiny_model()
    drafts = generated(model)
    model.get_output_embeddings().weight.data[:] = torch.nan
    with pytest.raises(RunFailed, match="finite"):
        generated(model)
    with pytest.raises(RunFailed, match="finite"):
        confirmed(model, drafts)
