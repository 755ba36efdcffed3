"""In every architecture, likelihoods and gradients of a batch are those of plain transformers and
PEFT for one example at a time.
"""

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from services.trainer.data.tokenization import EncodedExample
from services.trainer.training.attention import attention_implementation
from services.trainer.training.base_model import trainable_adapter
from services.trainer.training.likelihood import collate, log_likelihoods
from shared.config.training import TrainingConfig
from shared.events.hyperparameters import ATTENTION_PROJECTIONS
from tests.bases.architectures import ARCHITECTURES, MIXTURES, tiny_config

EXAMPLES = (
    EncodedExample(tuple(range(3, 20)), 8),
    EncodedExample(tuple(range(30, 60)), 12),
    EncodedExample((*range(3, 9), 70, 71, 72), 6),
)
MAX_DIFFERENCE = 1e-5
"""Nats, of one token."""
MAX_GRADIENT_DIFFERENCE = 1e-4
"""Of the gradient's length."""
CONFIG = TrainingConfig(targets=ATTENTION_PROJECTIONS, rank=4, alpha=8, precision="fp32")


def with_random_adapter(architecture: str) -> Any:
    """A model in float64, where only a fault makes a difference; experts are computed in float32 at
    most.
    """
    torch.manual_seed(3)
    torch.set_num_threads(1)  # for so few weights, threads cost more than they save
    config = tiny_config(architecture)
    causal: Any = AutoModelForCausalLM
    model = causal.from_config(
        config,
        dtype=torch.float32 if architecture in MIXTURES else torch.float64,
        attn_implementation=attention_implementation(config),
    )
    return model.requires_grad_(False).eval()


def plain_likelihoods(causal: Any, example: EncodedExample) -> torch.Tensor:
    ids = torch.tensor([example.ids])
    scores = causal(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
    places = torch.arange(example.answer_start, len(example.ids))
    likelihoods: torch.Tensor = scores[places - 1, ids[0, places]]
    return likelihoods


def gradients_of(adapted: Any, likelihoods: torch.Tensor) -> torch.Tensor:
    weights = [weight for weight in adapted.parameters() if weight.requires_grad]
    found = torch.autograd.grad(likelihoods.sum(), weights)
    return torch.cat([gradient.flatten().double() for gradient in found])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_likelihoods_and_gradients_are_those_of_plain_peft(architecture: str) -> None:
    model = with_random_adapter(architecture)
    with trainable_adapter(model, CONFIG, None) as adapted:
        with torch.no_grad():
            for name, weight in adapted.named_parameters():
                if "lora_B" in name:
                    weight.normal_(0, 0.05)
        causal = adapted.get_base_model()
        expected = torch.cat([plain_likelihoods(causal, example) for example in EXAMPLES])
        expected_gradients = gradients_of(adapted, expected)
        likelihoods = log_likelihoods(adapted, collate(EXAMPLES, "cpu"))
        gradients = gradients_of(adapted, likelihoods)
    assert float((likelihoods - expected).detach().abs().max()) < MAX_DIFFERENCE
    difference = (gradients - expected_gradients).norm() / expected_gradients.norm()
    assert float(difference) < MAX_GRADIENT_DIFFERENCE
