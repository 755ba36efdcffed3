"""Training of a tiny random model: value of the loss, and invariances of the result."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from services.trainer.data.tokenization import encode, encode_prompt
from services.trainer.data.training_set import Sample
from services.trainer.errors import RunFailed
from services.trainer.protocol import Stepped, Trained
from services.trainer.training.base_model import save_adapter, trainable_adapter, with_adapter
from services.trainer.training.likelihood import collate, log_likelihoods
from services.trainer.training.recipe import learning_rate, step_batches, train
from shared.config.training import TrainingConfig
from shared.events import Message
from tests.trainer.tiny import END, EXAMPLES, VOCABULARY, encode_pair, tiny_model, weights

CONFIG = TrainingConfig(
    rank=4, alpha=8, batch_size=8, epochs=3, learning_rate=1e-3, warmup_ratio=0.1
)


def run(
    config: TrainingConfig, out: Path, parent: Path | None = None
) -> tuple[Trained, list[Stepped]]:
    """Train the tiny model on all examples and save the adapter."""
    steps: list[Stepped] = []
    torch.manual_seed(config.seed)
    with trainable_adapter(tiny_model(), config, parent) as model:
        trained = train(model, EXAMPLES, config, "cpu", steps.append)
        save_adapter(model, "tiny", out)
    return trained, steps


def test_likelihoods_cover_only_answer_tokens() -> None:
    """Computed example by example without padding: row t of the logits predicts token t + 1."""
    model = tiny_model()
    by_hand = []
    for example in EXAMPLES:
        logits = model(input_ids=torch.tensor([example.ids])).logits[0].log_softmax(-1)
        by_hand += [
            float(logits[position - 1, example.ids[position]])
            for position in range(example.answer_start, len(example.ids))
        ]
    likelihoods = log_likelihoods(model, collate(EXAMPLES, "cpu"))
    assert likelihoods.tolist() == pytest.approx(by_hand, abs=1e-5)
    assert len(by_hand) == sum(example.answer_tokens for example in EXAMPLES)


def test_step_loss_is_the_mean_over_answer_tokens(tmp_path: Path) -> None:
    """A fresh adapter has no effect, so the first step's loss is the bare base's cross-entropy with
    the prompts masked out.
    """
    _, steps = run(CONFIG, tmp_path)
    losses, tokens = 0.0, 0
    for example in EXAMPLES:
        labels = torch.tensor(example.ids)
        labels[: example.answer_start] = -100
        logits = tiny_model()(input_ids=torch.tensor([example.ids])).logits[0, :-1]
        losses += float(
            functional.cross_entropy(logits, labels[1:], ignore_index=-100, reduction="sum")
        )
        tokens += example.answer_tokens
    assert steps[0].loss == pytest.approx(losses / tokens, rel=1e-5)


def test_batch_of_eight_equals_eight_accumulated_batches(tmp_path: Path) -> None:
    together, _ = run(CONFIG, tmp_path / "8x1")
    alone, _ = run(CONFIG.model_copy(update={"batch_size": 1}), tmp_path / "1x8")
    assert (
        (together.steps, together.tokens)
        == (alone.steps, alone.tokens)
        == (3, 3 * sum(len(example.ids) for example in EXAMPLES))
    )
    assert together.training_loss == pytest.approx(alone.training_loss, rel=1e-4)
    for name, weight in weights(tmp_path / "8x1").items():
        torch.testing.assert_close(weight, weights(tmp_path / "1x8")[name], rtol=1e-2, atol=1e-4)


def test_same_seed_gives_identical_adapter(tmp_path: Path) -> None:
    run(CONFIG, tmp_path / "one")
    run(CONFIG, tmp_path / "two")
    assert (tmp_path / "one" / "adapter_model.safetensors").read_bytes() == (
        tmp_path / "two" / "adapter_model.safetensors"
    ).read_bytes()


def test_configuration_of_an_adapter_is_in_a_fixed_order(tmp_path: Path) -> None:
    """Else another process, with other hashes of texts, would write another digest."""
    names = ("v_proj", "q_proj", "up_proj", "o_proj", "k_proj", "gate_proj", "down_proj")
    run(CONFIG.model_copy(update={"targets": names, "epochs": 1}), tmp_path)
    written = json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"]
    assert written == sorted(names)


def test_training_lowers_the_loss_and_leaves_the_base_unchanged(tmp_path: Path) -> None:
    model = tiny_model()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    config = CONFIG.model_copy(update={"epochs": 30, "learning_rate": 5e-3})
    losses: list[float] = []
    torch.manual_seed(0)
    with trainable_adapter(model, config, None) as wrapped:
        train(wrapped, EXAMPLES, config, "cpu", lambda step: losses.append(step.loss))
    assert losses[-1] < losses[0] - 0.5
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_run_starts_from_the_parent_adapter(tmp_path: Path) -> None:
    """The first loss of the second run is the parent's loss, and the parent's adapter stays
    unchanged.
    """
    config = CONFIG.model_copy(update={"epochs": 10, "learning_rate": 5e-3})
    run(config, tmp_path / "parent")
    parent_bytes = (tmp_path / "parent" / "adapter_model.safetensors").read_bytes()
    with with_adapter(tiny_model(), tmp_path / "parent") as model, torch.no_grad():
        parent_loss = -float(log_likelihoods(model, collate(EXAMPLES, "cpu")).mean())
    child, steps = run(config, tmp_path / "child", tmp_path / "parent")
    assert steps[0].loss == pytest.approx(parent_loss, rel=1e-4)
    assert child.training_loss < parent_loss
    assert (tmp_path / "parent" / "adapter_model.safetensors").read_bytes() == parent_bytes


def test_parent_of_a_different_shape_is_rejected(tmp_path: Path) -> None:
    run(CONFIG, tmp_path / "parent")
    with pytest.raises(RunFailed, match="rank"):
        run(CONFIG.model_copy(update={"rank": 8}), tmp_path / "child", tmp_path / "parent")


def test_only_the_last_layers_are_adapted(tmp_path: Path) -> None:
    """The first loss equals that with all layers; the file contains only the last layer, and a run
    from it adapts the same layer.
    """
    _, steps = run(CONFIG, tmp_path / "all")
    config = CONFIG.model_copy(update={"layers": 1})
    _, first = run(config, tmp_path / "last")
    assert first[0].loss == pytest.approx(steps[0].loss)
    assert first[-1].loss < first[0].loss
    assert {name.split(".layers.")[1][0] for name in weights(tmp_path / "all")} == {"0", "1"}
    assert {name.split(".layers.")[1][0] for name in weights(tmp_path / "last")} == {"1"}
    run(config, tmp_path / "child", tmp_path / "last")
    with pytest.raises(RunFailed, match=r"'layers': 1}, the lane asks for .*'layers': None}"):
        run(CONFIG, tmp_path / "other", tmp_path / "last")


def test_more_layers_than_the_base_has_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="adapts 3 layers, but the base has 2"):
        run(CONFIG.model_copy(update={"layers": 3}), tmp_path)


def test_non_finite_loss_fails_the_run() -> None:
    model = tiny_model()
    model.get_output_embeddings().weight.data[0] = math.inf
    with trainable_adapter(model, CONFIG, None) as wrapped, pytest.raises(RunFailed) as failure:
        train(wrapped, EXAMPLES, CONFIG, "cpu", lambda step: None)
    assert "learning_rate" in failure.value.advice


def test_each_epoch_uses_all_examples_in_a_new_order() -> None:
    config = CONFIG.model_copy(update={"batch_size": 2})  # accumulated to 8 by fours
    small = TrainingConfig(batch_size=8)
    many = EXAMPLES * 5
    first, second = (list(step_batches(many, small, epoch)) for epoch in (0, 1))
    assert sorted(hash(example) for group in first for example in group) == sorted(map(hash, many))
    assert first != second
    assert list(step_batches(many, config, 0)) == first


def test_learning_rate_warms_up_and_decays_as_half_cosine() -> None:
    """Ten steps, two of them warm-up; half way through the other eight the cosine is 0, and the
    rate is half of the configured one.
    """
    config = TrainingConfig(learning_rate=1e-3, warmup_ratio=0.2)
    rates = [learning_rate(step, 10, config) for step in range(10)]
    assert rates[:3] == pytest.approx([5e-4, 1e-3, 1e-3])
    assert rates[6] == pytest.approx(5e-4)
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[-1] > 0


def test_each_cycle_starts_at_the_full_learning_rate() -> None:
    """Twelve steps, two of them warm-up, in two cycles of five: each starts at the full rate and
    decays equally.
    """
    config = TrainingConfig(learning_rate=1e-3, warmup_ratio=0.15, cycles=2)
    rates = [learning_rate(step, 12, config) for step in range(12)]
    assert rates[2:7] == pytest.approx(
        [5e-4 * (1 + math.cos(math.pi * part / 5)) for part in range(5)]
    )
    assert rates[7:] == pytest.approx(rates[2:7])


@pytest.mark.parametrize("weight", [1.0, 0.25])
def test_examples_count_by_their_weight(weight: float) -> None:
    """One step on two examples of weights w and 1: (w a + b) / (w m + n), where a and b are their
    losses, m and n their answer tokens.
    """
    weighted, unweighted = EXAMPLES[2], EXAMPLES[4]
    with torch.no_grad():
        a, b = (
            -float(log_likelihoods(tiny_model(), collate([example], "cpu")).sum())
            for example in (weighted, unweighted)
        )
    config, losses = CONFIG.model_copy(update={"epochs": 1}), list[float]()
    with trainable_adapter(tiny_model(), config, None) as model:
        train(
            model,
            [replace(weighted, weight=weight), unweighted],
            config,
            "cpu",
            lambda step: losses.append(step.loss),
        )
    assert losses == pytest.approx(
        [(weight * a + b) / (weight * weighted.answer_tokens + unweighted.answer_tokens)], rel=1e-5
    )


def test_truncation_keeps_the_answer_before_the_prompt() -> None:
    sample = Sample(messages=(Message(role="user", content="abcdef"),), answer="xyz")
    whole = encode(VOCABULARY, sample, 100)
    assert whole.ids[whole.answer_start :] == (*encode_pair("", "xyz").ids[:-1], END)
    assert whole.ids[: whole.answer_start] == encode_prompt(VOCABULARY, sample.messages, 100)
    short = encode(VOCABULARY, sample, 10)
    assert short.ids == whole.ids[-10:]
    assert encode(VOCABULARY, sample, 3).answer_tokens == 2
