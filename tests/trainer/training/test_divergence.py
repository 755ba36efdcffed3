"""The divergence rule distinguishes diverging runs from noisy ones."""

import math
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from services.trainer.data.tokenization import encode
from services.trainer.errors import RunFailed
from services.trainer.protocol import Stepped
from services.trainer.training.base_model import load_base, save_adapter, trainable_adapter
from services.trainer.training.divergence import (
    LOSS_FACTOR,
    LOSS_NATS,
    NEW_NATS,
    NORM_FACTOR,
    WINDOW,
    divergence_reason,
)
from services.trainer.training.recipe import train
from shared.config.training import TrainingConfig
from tests.support.tickets import tickets
from tests.trainer.tiny import EXAMPLES, tiny_model


def first_diverged_step(
    losses: Sequence[float],
    norms: Sequence[float | None],
    clipping_norm: float = 0.3,
    epoch_steps: int = 1,
) -> int | None:
    return next(
        (
            step
            for step in range(1, len(losses) + 1)
            if divergence_reason(losses[:step], norms[:step], clipping_norm, epoch_steps)
        ),
        None,
    )


def test_lasting_rise_of_the_loss_is_detected() -> None:
    """Ten steps at 2 nats, then 12: the limit is 1.5 x 2 + 1 = 4. The mean of five is 2 + 10 k / 5
    with k high losses: 4 with one, which is not above the limit, 6 with two.
    """
    assert (WINDOW, LOSS_FACTOR, LOSS_NATS) == (5, 1.5, 1.0)
    losses = [2.0] * 10 + [12.0] * 5
    assert first_diverged_step(losses, [1.0] * 15) == 12
    assert (
        divergence_reason(losses, [1.0] * 15, 0.3, 1)
        == "the loss rose from 2.00 to 12.00 nats per token over 15 steps"
    )


def test_lasting_growth_of_norms_is_detected() -> None:
    """The median of five changes with the third of them."""
    norms = [1.0] * 20 + [NORM_FACTOR * 2] * 5
    assert first_diverged_step([1.0] * 25, norms) == 23


def test_small_norms_at_the_start_are_no_scale() -> None:
    """The champion has mastered the examples of the first steps: norms of a hundredth of the
    clipping norm, then those of examples that are new to it. Beyond the factor above the clipping
    norm, the rise is a divergence all the same.
    """
    mastered, new = [0.0189] * 12, [0.934] * 12
    assert first_diverged_step([0.2] * 24, [*mastered, *new], clipping_norm=0.3) is None
    exploding = [1.1 * 0.3 * NORM_FACTOR] * 12
    assert first_diverged_step([0.2] * 24, [*mastered, *exploding], clipping_norm=0.3) == 15


def test_new_examples_after_mastered_ones_are_healthy() -> None:
    """The first 12 steps have examples that the champion has mastered, the next ones new ones. In
    the next epoch, the same rise is a divergence: all examples have been seen.
    """
    losses = [0.0] * 12 + [1.53] * 12
    assert first_diverged_step(losses, [1.0] * 24, epoch_steps=24) is None
    assert first_diverged_step(losses, [1.0] * 24, epoch_steps=6) == 16
    worse_than_new = [0.0] * 12 + [1.1 * NEW_NATS] * 12
    assert first_diverged_step(worse_than_new, [1.0] * 24, epoch_steps=24) == 17


def test_single_spikes_and_returning_norms_are_ignored() -> None:
    assert (
        first_diverged_step([2.0] * 10 + [7.0] + [2.0] * 10, [1.0] * 10 + [1000.0] * 2 + [1.0] * 9)
        is None
    )
    learned = [5.0] * 10 + [0.001] * 50 + [5.0] * 10
    assert first_diverged_step([0.5] * 70, learned) is None


def test_overflowed_norms_are_ignored() -> None:
    assert first_diverged_step([1.0] * 20, [None] * 20) is None
    assert first_diverged_step([1.0] * 20, [None, None, *[1.0] * 18]) is None


@given(st.integers(0, 10_000), st.floats(0.05, 3), st.integers(20, 120))
@settings(max_examples=60)
def test_healthy_run_is_never_stopped(seed: int, initial_loss: float, steps: int) -> None:
    """The loss falls towards a tenth with a spread of half its size; norms fall as much with a
    spread of a factor of e in both directions.
    """
    draw = random.Random(seed)
    falling = [initial_loss * (0.1 + 0.9 * math.exp(-step / 15)) for step in range(steps)]
    losses = [mean * draw.uniform(0.5, 1.5) for mean in falling]
    norms = [mean * math.exp(draw.gauss(0, 1)) for mean in falling]
    assert first_diverged_step(losses, norms) is None


CONFIG = TrainingConfig(rank=4, alpha=16, batch_size=8, epochs=40, learning_rate=5e-3)
"""40 epochs of one step each."""


def run(config: TrainingConfig, out: Path, parent: Path | None = None) -> list[float]:
    losses: list[float] = []
    torch.manual_seed(config.seed)
    with trainable_adapter(tiny_model(), config, parent) as model:
        train(model, EXAMPLES, config, "cpu", lambda step: losses.append(step.loss))
        save_adapter(model, "tiny", out)
    return losses


def test_excessive_learning_rate_fails_early_with_advice(tmp_path: Path) -> None:
    """The rate is above any lane's limit: a trained model forgets its task. Norms are random in
    such a run; the rule for norms is tested above.
    """
    parent = tmp_path / "parent"
    assert run(CONFIG, parent)[-1] < 1
    steps: list[Stepped] = []
    config = CONFIG.model_copy(update={"learning_rate": 0.1})
    with (
        trainable_adapter(tiny_model(), config, parent) as model,
        pytest.raises(RunFailed, match="diverged: the loss rose") as failure,
    ):
        train(model, EXAMPLES, config, "cpu", steps.append)
    assert len(steps) <= config.epochs / 2
    assert "learning_rate" in failure.value.advice


@pytest.mark.model
def test_real_model_at_an_excessive_rate_fails_early(bases: Path) -> None:
    """At twenty times the highest rate of a lane. The loss decides: the norms of the first steps
    are as large as the later ones.
    """
    base = load_base(str(bases / "smollm2-135m-instruct"), "auto")
    config = TrainingConfig(rank=4, layers=2, batch_size=4, epochs=20).model_copy(
        update={"learning_rate": 0.1}
    )
    examples = [encode(base.vocabulary, sample, 128) for sample in tickets(0, 4)]
    steps: list[Stepped] = []
    with (
        trainable_adapter(base.train_model, config, None) as model,
        pytest.raises(RunFailed, match="diverged: the loss rose"),
    ):
        train(model, examples, config, base.device, steps.append)
    assert len(steps) < config.epochs


@pytest.mark.parametrize("seed", range(4))
def test_healthy_run_of_the_tiny_model_completes(tmp_path: Path, seed: int) -> None:
    """Uses dropout and the highest learning rate that a lane allows."""
    losses = run(CONFIG.model_copy(update={"dropout": 0.3, "seed": seed}), tmp_path)
    assert len(losses) == 40
    assert losses[-1] < losses[0]
