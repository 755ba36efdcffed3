"""Preference objectives: disliked answers become less likely, corrections gain on the answers they
replaced.
"""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from services.trainer.data.tokenization import EncodedExample
from services.trainer.protocol import Stepped
from services.trainer.training.base_model import save_adapter, trainable_adapter
from services.trainer.training.preferences import (
    EncodedPair,
    JudgedAnswer,
    answer_likelihoods,
    mismatch_answers,
    step_items,
)
from services.trainer.training.recipe import train
from shared.config.training import TrainingConfig
from tests.trainer.tiny import EXAMPLES, encode_pair, tiny_model, weights

CONFIG = TrainingConfig(rank=4, alpha=8, batch_size=4, epochs=10, learning_rate=5e-3)

LIKED = [encode_pair("more of", "uvu"), encode_pair("and of", "tvt")]
DISLIKED = [
    encode_pair("none of", "zzzz"),
    encode_pair("nor of", "yxyx"),
    encode_pair("never", "99"),
    encode_pair("no", "qqq"),
]
JUDGED = [
    *(JudgedAnswer(example, True) for example in LIKED),
    *(JudgedAnswer(example, False) for example in DISLIKED),
]
PAIRS = [
    EncodedPair(encode_pair(prompt, prompt[::-1]), encode_pair(prompt, "wrong " + prompt))
    for prompt in ("abc", "def", "ghijk", "lm", "nop")
]


def likelihoods(model: torch.nn.Module, examples: list[EncodedExample]) -> list[float]:
    model.eval()
    with torch.no_grad():
        return [float(value) for value in answer_likelihoods(model, examples, "cpu")]


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that gives all of these answers: users rate answers that the model gives."""
    folder = tmp_path_factory.mktemp("parent")
    torch.manual_seed(0)
    with trainable_adapter(tiny_model(), CONFIG, None) as model:
        train(model, [*EXAMPLES, *LIKED, *DISLIKED], CONFIG, "cpu", lambda step: None)
        save_adapter(model, "tiny", folder)
    return folder


def change(
    examples: list[EncodedExample],
    watched: list[EncodedExample],
    pairs: list[EncodedPair],
    judged: list[JudgedAnswer],
    parent: Path | None = None,
    config: TrainingConfig = CONFIG,
) -> tuple[list[float], list[Stepped]]:
    """Train, and return the increase in log-likelihood of each watched answer, in nats, with all
    steps.
    """
    steps: list[Stepped] = []
    torch.manual_seed(config.seed)
    with trainable_adapter(tiny_model(), config, parent) as model:
        before = likelihoods(model, watched)
        train(model, examples, config, "cpu", steps.append, pairs=pairs, judged=judged)
        after = likelihoods(model, watched)
    return [b - a for a, b in zip(before, after, strict=True)], steps


def test_answer_likelihood_is_the_sum_over_its_tokens() -> None:
    model = tiny_model()
    for example, likelihood in zip(EXAMPLES, likelihoods(model, EXAMPLES), strict=True):
        logits = model(input_ids=torch.tensor([example.ids])).logits[0].log_softmax(-1)
        by_hand = sum(
            float(logits[position - 1, example.ids[position]])
            for position in range(example.answer_start, len(example.ids))
        )
        assert likelihood == pytest.approx(by_hand, abs=1e-4)


def test_kto_lowers_disliked_and_raises_liked_answers(parent: Path) -> None:
    changes, steps = change(
        EXAMPLES, [*LIKED, *DISLIKED], [], JUDGED, parent, CONFIG.model_copy(update={"epochs": 30})
    )
    assert all(gain > 0 for gain in changes[: len(LIKED)])
    assert all(gain < 0 for gain in changes[len(LIKED) :])
    assert steps[-1].judged_loss is not None
    assert steps[0].judged_loss is not None
    assert steps[-1].judged_loss < steps[0].judged_loss


def test_kto_dampens_the_rise_of_similar_disliked_answers() -> None:
    """The same answers are trained for other prompts, and the initial model gives none of them."""
    disliked = [
        JudgedAnswer(encode_pair("not here", "abc"), False),
        JudgedAnswer(encode_pair("nor here", "eeeee"), False),
    ]
    watched = [answer.example for answer in disliked]
    without_kto, _ = change(EXAMPLES, watched, [], [])
    with_kto, _ = change(EXAMPLES, watched, [], disliked)
    assert all(gain > 0 for gain in without_kto)
    assert all(gain < undampened for gain, undampened in zip(with_kto, without_kto, strict=True))


def test_dpo_raises_corrections_over_replaced_answers() -> None:
    chosen, rejected = [pair.chosen for pair in PAIRS], [pair.rejected for pair in PAIRS]
    changes, steps = change(chosen, [*chosen, *rejected], PAIRS, [])
    plain, _ = change(chosen, [*chosen, *rejected], [], [])
    gains = [a - b for a, b in zip(changes[:5], changes[5:], strict=True)]
    assert all(gain > 0 for gain in gains)
    assert all(gain > 0 for gain in changes[:5])
    assert sum(gains) > sum(a - b for a, b in zip(plain[:5], plain[5:], strict=True)), (
        "more than by learning the corrections alone"
    )
    assert steps[0].preference_loss is not None
    assert steps[-1].preference_loss is not None
    assert steps[-1].preference_loss < steps[0].preference_loss


def test_first_step_has_the_reference_losses() -> None:
    """For an unchanged model, a pair costs log 2 and a judged answer 1 - sigma(0) = 0.5 on either
    side. All eight examples are one step, so the step has all pairs and all judged answers, whose
    weights have a mean of 1.
    """
    _, steps = change(
        EXAMPLES, EXAMPLES, PAIRS, JUDGED, config=CONFIG.model_copy(update={"epochs": 1})
    )
    assert len(steps) == 1
    assert steps[0].preference_loss == pytest.approx(math.log(2), rel=1e-4)
    assert steps[0].judged_loss == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_result_does_not_depend_on_batch_size(tmp_path: Path, batch_size: int) -> None:
    """One batch of eight equals eight batches of one, and two batches of four, which accumulation
    combines to eight.
    """
    adapters = []
    for size in (8, batch_size):
        config = CONFIG.model_copy(update={"batch_size": size, "epochs": 3, "learning_rate": 1e-3})
        assert size * config.accumulation == 8
        torch.manual_seed(0)
        with trainable_adapter(tiny_model(), config, None) as model:
            train(model, EXAMPLES, config, "cpu", lambda step: None, pairs=PAIRS, judged=JUDGED)
            save_adapter(model, "tiny", tmp_path / str(size))
        adapters.append(weights(tmp_path / str(size)))
    for name, weight in adapters[0].items():
        torch.testing.assert_close(weight, adapters[1][name], rtol=1e-2, atol=1e-4)


def test_prompts_are_paired_with_answers_to_other_prompts() -> None:
    first, second, third = (
        encode_pair("one", "a"),
        encode_pair("two words", "bb"),
        encode_pair("three", "abc"),
    )
    assert mismatch_answers([first, second, third]) == [
        encode_pair("one", "bb"),
        encode_pair("two words", "abc"),
        encode_pair("three", "a"),
    ]
    assert mismatch_answers([first]) == []


@given(st.integers(0, 60), st.integers(1, 20), st.integers(0, 5), st.integers(0, 3))
def test_epoch_covers_all_items_once_and_evenly(
    items: int, steps: int, epoch: int, seed: int
) -> None:
    portions = [step_items(range(items), epoch, step, steps, seed) for step in range(steps)]
    assert sorted(item for part in portions for item in part) == list(range(items))
    assert max(map(len, portions)) - min(map(len, portions)) <= 1
