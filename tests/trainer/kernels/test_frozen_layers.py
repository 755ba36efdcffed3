"""What lies below the adapted layers is computed once, and nothing that is learned is another for
it.
"""

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
"""Of an epoch: 16 examples, 8 at a time."""


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """How often each layer has computed something."""
    counted: Counter[int] = Counter()
    real = LlamaDecoderLayer.forward

    def forward(self: LlamaDecoderLayer, *args: object, **more: object) -> object:
        counted[self.self_attn.layer_idx] += 1
        return real(self, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(LlamaDecoderLayer, "forward", forward)
    return counted


def run(out: Path, config: TrainingConfig = LAST, **lessons: object) -> dict[str, torch.Tensor]:
    steps: list[Stepped] = []
    torch.manual_seed(config.seed)
    with trainable_adapter(tiny_model(), config, None) as model:
        train(model, EXAMPLES * 2, config, "cpu", steps.append, **lessons)  # type: ignore[arg-type]
        save_adapter(model, "tiny", out)
    assert sum(step.loss for step in steps[-ROWS:]) < sum(step.loss for step in steps[:ROWS])
    return weights(out)


def test_a_row_is_computed_once_below(tmp_path: Path, computed: Counter[int]) -> None:
    run(tmp_path)
    assert computed == {0: ROWS, 1: LAST.epochs * ROWS}


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_adapter_is_the_same_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpointing: bool
) -> None:
    """With pairs and judged answers as well."""
    config = LAST.model_copy(update={"gradient_checkpointing": checkpointing})
    found = run(tmp_path / "once", config, pairs=PAIRS, judged=JUDGED)
    monkeypatch.setattr(frozen_layers, "REMEMBERED", 0)
    every_time = run(tmp_path / "every time", config, pairs=PAIRS, judged=JUDGED)
    assert found.keys() == every_time.keys()
    assert all(torch.equal(weight, every_time[name]) for name, weight in found.items())


def test_what_there_is_no_room_for_is_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, computed: Counter[int]
) -> None:
    """There is a place for either row, and not for both."""
    sizes = [
        len(collate(group, "cpu").row.ids) * 32 * 4 for group in step_batches(EXAMPLES * 2, LAST, 0)
    ]
    monkeypatch.setattr(frozen_layers, "REMEMBERED", max(sizes))
    run(tmp_path)
    assert computed == {0: 1 + LAST.epochs, 1: LAST.epochs * ROWS}


def test_where_all_layers_are_adapted_all_of_them_compute(
    tmp_path: Path, computed: Counter[int]
) -> None:
    run(tmp_path, LAST.model_copy(update={"layers": None}))
    assert computed == {0: LAST.epochs * ROWS, 1: LAST.epochs * ROWS}


def test_layers_that_drop_something_at_random_compute_every_time(computed: Counter[int]) -> None:
    model = tiny_model()
    model.config.attention_dropout = 0.1
    with trainable_adapter(model, LAST, None) as wrapped:
        for _ in range(3):
            log_likelihoods(wrapped, collate(EXAMPLES, "cpu"))
    assert computed[0] == 3


def test_what_was_computed_for_a_look_is_not_trained_on_and_nothing_stays_behind(
    computed: Counter[int],
) -> None:
    model, batch = tiny_model(), collate(EXAMPLES, "cpu")
    with trainable_adapter(model, LAST, None) as wrapped:
        with torch.inference_mode():
            log_likelihoods(wrapped, batch)
        torch.autograd.backward(log_likelihoods(wrapped, batch).sum())
        log_likelihoods(wrapped, batch)
        assert computed[0] == 2
    log_likelihoods(model, batch)
    assert computed[0] == 3
