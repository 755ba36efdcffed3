"""Frozen layers are computed once per row, without any effect on the trained adapter or on a
score.
"""

from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from services.trainer.data.tokenization import EncodedExample
from services.trainer.kernels import frozen_layers
from services.trainer.kernels.frozen_layers import ActivationCache
from services.trainer.kernels.packing import pack
from services.trainer.protocol import Stepped
from services.trainer.training.base_model import save_adapter, trainable_adapter, with_adapter
from services.trainer.training.likelihood import collate, log_likelihoods
from services.trainer.training.recipe import step_batches, train
from services.trainer.training.scoring import score
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


def trained(folder: Path, layers: int | None, seed: int) -> Path:
    run(folder, LAST.model_copy(update={"layers": layers, "seed": seed}))
    return folder


def scores(model: object, adapter: Path, cache: ActivationCache | None) -> list[float]:
    with with_adapter(model, adapter, cache) as adapted:
        return score(adapted, EXAMPLES, "cpu", lambda done: None)


def test_scores_reuse_frozen_layers(tmp_path: Path, forward_counts: Counter[int]) -> None:
    """The second adapter is scored with what the first one's evaluation has computed."""
    first, second = (trained(tmp_path / str(seed), 1, seed) for seed in (1, 2))
    model, cache = tiny_model(), ActivationCache(1 << 20, for_inference=True)
    forward_counts.clear()
    scores(model, first, cache)
    computed = forward_counts[0]
    assert computed
    reused = scores(model, second, cache)
    assert forward_counts == {0: computed, 1: 2 * computed}
    assert reused == scores(model, second, None)


def test_scores_of_other_depths_are_apart(tmp_path: Path) -> None:
    """An adapter of all layers shares nothing with one of the last layer."""
    model, cache = tiny_model(), ActivationCache(1 << 20, for_inference=True)
    last, whole = trained(tmp_path / "last", 1, 1), trained(tmp_path / "all", None, 1)
    scores(model, last, cache)
    assert scores(model, whole, cache) == scores(model, whole, None)
    assert scores(model, last, cache) == scores(model, last, None)


def test_evaluation_cache_drops_the_oldest_rows() -> None:
    cache = ActivationCache(2 * 4 * 8, for_inference=True)
    rows = [pack([EncodedExample((letter, 1, 2), 1)]) for letter in range(3)]
    with torch.inference_mode():
        for row in rows[:2]:
            cache.put(1, row, torch.ones(1, 8))
        cache.get(1, rows[0])
        cache.put(1, rows[2], torch.ones(1, 8))
        cache.put(1, rows[1], torch.ones(1, 17))  # larger than the cache
    assert [cache.get(1, row) is not None for row in rows] == [True, False, True]
    assert cache.get(2, rows[0]) is None
