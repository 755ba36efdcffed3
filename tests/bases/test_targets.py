"""A lane's targets reach the projections that they name, in the layers that they name, in every
architecture; targets that reach nothing are refused before training.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from services.trainer.data.tokenization import EncodedExample
from services.trainer.errors import RunFailed
from services.trainer.training.base_model import save_adapter, trainable_adapter, with_adapter
from services.trainer.training.base_shape import read_shape
from services.trainer.training.recipe import train
from shared.config.training import TrainingConfig
from shared.events.hyperparameters import ATTENTION_PROJECTIONS
from shared.storage.adapters import CONFIG, adapted_projections
from shared.storage.base_projections import layer_counts
from tests.bases.architectures import ARCHITECTURES, LAYERS, MIXTURES, frozen_model, tiny_config

SEVEN = (*ATTENTION_PROJECTIONS, "gate_proj", "up_proj", "down_proj")
EXAMPLES = [
    EncodedExample(tuple(range(3, 20)), 8),
    EncodedExample(tuple(range(30, 60)), 12),
]
# Of the attention, of the feed-forward layers, and layers with an attention of the former kind.
USUAL = [f"self_attn.{name}" for name in ATTENTION_PROJECTIONS]
OTHER_ATTENTION: dict[str, list[str]] = {
    "phi": [*USUAL[:3], "self_attn.dense"],
    "phi3": ["self_attn.qkv_proj", "self_attn.o_proj"],
    "lfm2": [*USUAL[:3], "self_attn.out_proj"],
}
OTHER_FEED_FORWARD: dict[str, list[str]] = {
    "phi": ["mlp.fc1", "mlp.fc2"],
    "phi3": ["mlp.gate_up_proj", "mlp.down_proj"],
    "lfm2": ["feed_forward.w1", "feed_forward.w2", "feed_forward.w3"],
    "falcon_h1": [f"feed_forward.{name}" for name in SEVEN[4:]],
    "granitemoehybrid": ["shared_mlp.input_linear", "shared_mlp.output_linear"],
}
ATTENTION_LAYERS = {"lfm2": (1, 3), "granitemoehybrid": (1, 3), "qwen3_5_text": (3,)}


def expected(architecture: str, targets: Sequence[str], layers: range) -> dict[str, int]:
    own = [place for place in ATTENTION_LAYERS.get(architecture, range(LAYERS)) if place in layers]
    counts = dict.fromkeys(OTHER_ATTENTION.get(architecture, USUAL), len(own))
    if architecture == "qwen3_5_text":
        linear = ("linear_attn.in_proj_qkv", "linear_attn.out_proj")
        counts |= dict.fromkeys(linear, len(layers) - len(own))
    if targets == SEVEN:
        usual = [f"mlp.{name}" for name in SEVEN[4:]]
        counts |= dict.fromkeys(OTHER_FEED_FORWARD.get(architecture, usual), len(layers))
    return dict(sorted(counts.items()))


def configuration(targets: Sequence[str], layers: int | None = None) -> TrainingConfig:
    return TrainingConfig(
        rank=4, alpha=8, batch_size=2, epochs=1, precision="fp32", targets=targets, layers=layers
    )


def trained(model: Any, config: TrainingConfig, folder: Path) -> dict[str, int]:
    """Train and save an adapter; return the layers of each projection that it has."""
    with trainable_adapter(model, config, None) as adapted:
        train(adapted, EXAMPLES, config, "cpu", lambda _: None)
        save_adapter(adapted, "tiny", folder)
    return adapted_projections(folder)


@pytest.mark.parametrize("layers", [None, 2])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_targets_reach_what_they_name(
    architecture: str, layers: int | None, tmp_path: Path
) -> None:
    """The adapter is trained, saved, and loaded again; a champion of that shape is continued."""
    model = frozen_model(tiny_config(architecture))
    model.save_pretrained(tmp_path / "base")
    shape = read_shape(tmp_path / "base")
    adapted = range(LAYERS - (layers or LAYERS), LAYERS)
    for targets in (ATTENTION_PROJECTIONS, SEVEN):
        config, folder = configuration(targets, layers), tmp_path / str(len(targets))
        if architecture in MIXTURES and targets is SEVEN:
            with pytest.raises(RunFailed, match="gate_proj, up_proj, down_proj name no") as refused:
                trained(model, config, folder)
            assert "self_attn.q_proj" in refused.value.reason
            continue
        counts = expected(architecture, targets, adapted)
        assert trained(model, config, folder) == counts
        with with_adapter(model, folder):
            pass
        with trainable_adapter(model, config, folder):
            pass
        if shape is not None:
            matched = shape.matched(targets, layers).values()
            assert layer_counts(name for names in matched for name in names) == counts


def test_names_of_the_usual_architectures_stay_in_the_adapter(tmp_path: Path) -> None:
    model = frozen_model(tiny_config("llama"))
    trained(model, configuration(ATTENTION_PROJECTIONS, 2), tmp_path)
    written = json.loads((tmp_path / CONFIG).read_text())
    assert sorted(written["target_modules"]) == sorted(ATTENTION_PROJECTIONS)
    assert written["layers_to_transform"] == [2, 3]


@pytest.mark.parametrize("layers", [None, 1])
def test_the_vision_tower_is_left_out(layers: int | None, tmp_path: Path) -> None:
    from transformers import Gemma3Config

    make: Any = Gemma3Config
    vision = {
        "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
    }  # fmt: skip
    text = tiny_config("gemma3_text").to_dict()
    model = frozen_model(make(text_config=text, vision_config=vision, mm_tokens_per_image=4))
    counts = trained(model, configuration(ATTENTION_PROJECTIONS, layers), tmp_path)
    assert counts == dict.fromkeys(sorted(USUAL), layers or LAYERS)
    assert "vision_tower" not in (tmp_path / CONFIG).read_text()


def test_a_target_that_names_nothing_is_refused() -> None:
    model = frozen_model(tiny_config("llama"))
    with (
        pytest.raises(RunFailed, match="the targets x_proj name no projection in the base"),
        trainable_adapter(model, configuration(("q_proj", "x_proj")), None),
    ):
        pass
