"""Frozen layers are computed once per row, without any effect on the trained adapter."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from services.trainer.kernels import frozen_layers
from services.trainer.protocol import Stepped
from services.trainer.training.base_model import save_adapter, trainable_adapter
from services.trainer.training.likelihood import collate, log_likelihoods
from services.trainer.training.recipe import step_batches, train
from shared.config.training import TrainingConfig
from tests.trainer.tiny import EXAMPLES, tiny_model, weights
from tests.trainer.training.test_preferences import JUDGED, PAIRS

LAST = TrainingConfig(rank=4, alpha=8, batch_size=8, epochs=4, learning_rate=5e-3, layers=1)
ROWS = 2
"""Rows per epoch: 16 examples, 8 at a time."""


@pytest.fixture
def forward_counts(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """Number of forward passes per layer."""
    counts: Counter[int] = Counter()
    original = LlamaDecoderLayer.forward

    def forward(self: LlamaDecoderLayer, *args: object, **kwargs: object) -> object:
        counts[self.self_attn.layer_idx] += 1
        return original(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(LlamaDecoderLayer, "forward", forward)
    return counts


def run(out: Path, config: TrainingConfig = LAST, **preferences: object) -> dict[str, torch.Tensor]:
    steps: list[Stepped] = []
    torch.manual_seed(config.seed)
    with trainable_adapter(tiny_model(), config, None) as model:
        train(model, EXAMPLES * 2, config, "cpu", steps.append, **preferences)  # type: ignore[arg-type]
        save_adapter(model, "tiny", out)
    assert sum(step.loss for step in steps[-ROWS:]) < sum(step.loss for step in steps[:ROWS])
    return weights(out)


def test_frozen_layers_compute_each_row_once(tmp_path: Path, forward_counts: Counter[int]) -> None:
    run(tmp_path)
    assert forward_counts == {0: ROWS, 1: LAST.epochs * ROWS}


@pytest.mark.parametrize("checkpointing", [False, True])
def test_cache_does_not_change_the_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpointing: bool
) -> None:
    """Bitwise equality, including pairs and judged answers."""
    config = LAST.model_copy(update={"gradient_checkpointing": checkpointing})
    cached = run(tmp_path / "once", config, pairs=PAIRS, judged=JUDGED)
    monkeypatch.setattr(frozen_layers, "FROZEN_CACHE_BYTES", 0)
    uncached = run(tmp_path / "every time", config, pairs=PAIRS, judged=JUDGED)
    assert cached.keys() == uncached.keys()
    assert all(torch.equal(weight, uncached[name]) for name, weight in cached.items())


def test_rows_beyond_the_cache_limit_are_recomputed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forward_counts: Counter[int]
) -> None:
    """The cache has space for either row, but not for both."""
    sizes = [
        len(collate(group, "cpu").row.ids) * 32 * 4 for group in step_batches(EXAMPLES * 2, LAST, 0)
    ]
    monkeypatch.setattr(frozen_layers, "FROZEN_CACHE_BYTES", max(sizes))
    run(tmp_path)
    assert forward_counts == {0: 1 + LAST.epochs, 1: LAST.epochs * ROWS}


def test_no_cache_if_all_layers_are_adapted(tmp_path: Path, forward_counts: Counter[int]) -> None:
    run(tmp_path, LAST.model_copy(update={"layers": None}))
    assert forward_counts == {0: LAST.epochs * ROWS, 1: LAST.epochs * ROWS}


def test_no_cache_if_frozen_layers_have_dropout(forward_counts: Counter[int]) -> None:
    model = tiny_model()
    model.config.attention_dropout = 0.1
    with trainable_adapter(model, LAST, None) as wrapped:
        for _ in range(3):
            log_likelihoods(wrapped, collate(EXAMPLES, "cpu"))
    assert forward_counts[0] == 3


def test_inference_outputs_are_not_cached_and_patch_is_removed(
    forward_counts: Counter[int],
) -> None:
    model, batch = tiny_model(), collate(EXAMPLES, "cpu")
    with trainable_adapter(model, LAST, None) as wrapped:
        with torch.inference_mode():
            log_likelihoods(wrapped, batch)
        torch.autograd.backward(log_likelihoods(wrapped, batch).sum())
        log_likelihoods(wrapped, batch)
        assert forward_counts[0] == 2
    log_likelihoods(model, batch)
    assert forward_counts[0] == 3
