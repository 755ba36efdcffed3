"""Estimates of a run's duration: hand calculation, earlier runs, and what is missing."""

from dataclasses import replace

from services.trainer.machine.run_estimate import (
    EFFICIENCY,
    RunDuration,
    RunSize,
    estimate_time,
    operations,
)
from shared.config.training import TrainingConfig
from tests.trainer.machine.test_effective_settings import base

SHAPE = replace(base(4, ("q_proj", "o_proj"), width=10), vocabulary=90)
"""Four layers of 200 weights, and 900 of the head."""
SIZE = RunSize(10, 50.0, "given")


def test_operations_match_a_hand_calculation() -> None:
    """Two epochs, the last layer adapted: 4 x 200 x 2 for it, 2 x 200 x 3 once for the cached ones,
    4 x 900 / 3 x 2 for the head; recomputing adds 2 x 200 x 2. Not packed, nothing is cached.
    """
    config = TrainingConfig(layers=1, epochs=2)
    assert operations(SHAPE, config, 1) == 1600 + 1200 + 2400
    recomputing = config.with_values({"gradient_checkpointing": True})
    assert operations(SHAPE, recomputing, 1) == 2400 + 1200 + 2400
    assert operations(replace(SHAPE, packed=False), config, 1) == 1600 + 2400 + 2400
    assert operations(SHAPE, config, 50) == 50 * operations(SHAPE, config, 1)


def test_a_first_run_is_estimated_from_the_rate() -> None:
    config = TrainingConfig(layers=1, epochs=2)
    estimate = estimate_time(SHAPE, config, SIZE, [], 1000.0)
    slow, fast = EFFICIENCY
    assert (estimate.lowest, estimate.highest) == (260 / fast, 260 / slow)
    assert "10 examples with 5 tokens each (given)" in estimate.basis


def test_earlier_runs_replace_the_estimate() -> None:
    runs = [RunDuration(20.0, 10.0), RunDuration(25.0, 15.0)]
    estimate = estimate_time(None, TrainingConfig(), SIZE, runs, None)
    assert (estimate.lowest, estimate.highest) == (30.0, 40.0)
    assert "training 20 to 25 s, evaluation 10 to 15 s" in estimate.basis


def test_a_missing_base_or_library_is_named() -> None:
    without_base = estimate_time(None, TrainingConfig(), SIZE, [], 1000.0)
    without_rate = estimate_time(SHAPE, TrainingConfig(), SIZE, [], None)
    assert (without_base.lowest, without_rate.highest) == (None, None)
    assert "files of the base" in without_base.basis
    assert "PyTorch" in without_rate.basis
