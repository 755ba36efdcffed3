"""The same recipe on a GPU as on a CPU, and QLoRA on whichever there is."""

import math

import pytest
import torch
from transformers import LlamaConfig

from benchmarks.bench_gpu import examples, random_base, tokens_per_second
from services.trainer.likelihood import collate, log_likelihoods
from shared.training_config import TrainingConfig
from tests.trainer.tiny import EXAMPLES, tiny_model

gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine: `make test-gpu` needs one")]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=gpu)])
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")  # of bitsandbytes, about itself
def test_qlora_trains(device: str) -> None:
    config = LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
    )
    model = random_base(config, device)
    frozen = {name: weight.clone() for name, weight in model.state_dict().items()}
    rate = tokens_per_second(
        model, examples(4, config.vocab_size), TrainingConfig(batch_size=2, epochs=1, gradient_checkpointing=True), device
    )
    assert math.isfinite(rate)
    assert rate > 0
    assert all(torch.equal(weight, frozen[name]) for name, weight in model.state_dict().items())


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=gpu)])
def test_a_gpu_finds_answers_as_likely_as_a_cpu_does(device: str) -> None:
    with torch.inference_mode():
        here = log_likelihoods(tiny_model(), collate(EXAMPLES, "cpu"))
        there = log_likelihoods(tiny_model().to(device), collate(EXAMPLES, device))
    torch.testing.assert_close(there.cpu(), here, rtol=1e-3, atol=1e-3)
