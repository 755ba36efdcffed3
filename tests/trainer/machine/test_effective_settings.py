"""Settings for the base and the device: the demo's recipe by default; named settings win."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.trainer.machine.effective_settings import (
    IN_MODEL_FILE,
    SHOWN,
    Device,
    effective_settings,
)
from services.trainer.machine.memory import UNLIMITED, BatchTokens, ModelShape, estimate_needs
from shared.config.models import load_models
from shared.config.training import LANE_RANGES, TrainingConfig
from tests.trainer.machine.test_memory import LARGE

CPU = Device("cpu", "bf16", UNLIMITED)
LLAMA = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def base(layers: int, projections: tuple[str, ...] = LLAMA, width: int = 576) -> ModelShape:
    return ModelShape(
        tensors={
            f"model.layers.{layer}.self_attn.{name}.weight": (width, width)
            for layer in range(layers)
            for name in projections
        },
        layers=layers,
        hidden=width,
        intermediate=3 * width,
        heads=9,
        head_size=64,
        vocabulary=49_152,
        model_type="llama",
    )


SMALL = base(30)


def test_defaults_on_the_demo_base_are_its_recipe() -> None:
    """models/support.yaml names the same values."""
    tuned = load_models(Path("models")).files["support"].lanes["adaptive"].training
    assert effective_settings(TrainingConfig(), SMALL, CPU).config == tuned
    assert effective_settings(tuned, SMALL, CPU).config == tuned


def test_each_shown_setting_has_a_reason() -> None:
    for config in (TrainingConfig(), TrainingConfig(lane="master")):
        for shape in (SMALL, None):
            for device in (CPU, None):
                reasons = effective_settings(config, shape, device).reasons
                assert tuple(reasons) == SHOWN
                assert all(reasons.values())


@given(
    st.dictionaries(st.sampled_from(sorted(LANE_RANGES["adaptive"])), st.none(), max_size=5),
    st.integers(2**28, 2**36),
)
def test_named_settings_always_win(names: dict[str, None], memory: int) -> None:
    least = {name: LANE_RANGES["adaptive"][name].minimum for name in names}
    declared = TrainingConfig.model_validate(
        {name: int(value) if value == int(value) else value for name, value in least.items()}
    )
    settings = effective_settings(declared, LARGE, replace(CPU, memory=memory))
    for name in names:
        assert getattr(settings.config, name) == getattr(declared, name)
        if name in SHOWN:
            assert settings.reasons[name] == IN_MODEL_FILE


def test_named_null_adapts_all_layers() -> None:
    declared = TrainingConfig.model_validate({"layers": None})
    settings = effective_settings(declared, SMALL, CPU)
    assert (settings.config.layers, settings.reasons["layers"]) == (None, IN_MODEL_FILE)


@pytest.mark.parametrize(("layers", "adapted"), [(2, None), (3, 1), (30, 10), (32, 10)])
def test_the_last_third_of_the_layers_is_adapted(layers: int, adapted: int | None) -> None:
    assert effective_settings(TrainingConfig(), base(layers), CPU).config.layers == adapted


@pytest.mark.parametrize(("width", "rate"), [(576, 3e-3), (2048, 1e-3), (4096, 2e-4), (9000, 1e-4)])
def test_larger_bases_learn_at_lower_rates(width: int, rate: float) -> None:
    """Seven square matrices in each of 36 layers: 84 million to 20 billion parameters."""
    settings = effective_settings(TrainingConfig(), base(36, width=width), CPU)
    assert settings.config.learning_rate == rate


def test_targets_are_those_that_the_base_has() -> None:
    fused = base(30, ("q_proj", "k_proj", "v_proj", "o_proj"))
    settings = effective_settings(TrainingConfig(), fused, CPU)
    assert settings.config.targets == ("q_proj", "k_proj", "v_proj", "o_proj")
    foreign = base(30, ("query", "key"))
    assert effective_settings(TrainingConfig(), foreign, CPU).config.targets == LLAMA


def needed(config: TrainingConfig) -> int:
    batch = BatchTokens.largest((), config.batch_size, config.max_tokens)
    return estimate_needs(LARGE, config, "bf16", batch).total


def test_memory_is_saved_before_batches_shrink() -> None:
    """Checkpointing gives the same gradients; smaller batches take more time for a step."""
    plain = effective_settings(TrainingConfig(), LARGE, CPU).config
    recomputing = plain.with_values({"gradient_checkpointing": True})
    smaller = plain.with_values({"gradient_checkpointing": True, "batch_size": 4})
    assert needed(smaller) < needed(recomputing) < needed(plain)

    def chosen(memory: int, **named: Any) -> tuple[bool, int]:
        declared = TrainingConfig.model_validate(named)
        config = effective_settings(declared, LARGE, replace(CPU, memory=memory)).config
        return config.gradient_checkpointing, config.batch_size

    assert chosen(needed(plain)) == (False, 5)
    assert chosen(needed(recomputing)) == (True, 5)
    assert chosen(needed(smaller)) == (True, 4)
    assert chosen(needed(smaller), batch_size=5) == (False, 5), "nothing that is allowed fits"
    assert chosen(needed(recomputing), gradient_checkpointing=False)[0] is False
    assert chosen(1) == (False, 5), "batches of short examples may still fit"


def test_the_master_lane_keeps_its_recipe() -> None:
    settings = effective_settings(TrainingConfig(lane="master"), SMALL, CPU)
    assert settings.config == TrainingConfig(lane="master")


def test_an_unknown_base_keeps_the_defaults_of_the_lane() -> None:
    settings = effective_settings(TrainingConfig(), None, CPU)
    assert settings.config == TrainingConfig()
    assert "unknown" in settings.reasons["layers"]
