"""Packed or padded, bare or with an adapter: likelihoods and gradients are those of one example at
a time.
"""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoConfig, AutoModelForCausalLM

from services.trainer.data.tokenization import EncodedExample
from services.trainer.kernels import cpu_attention as short_attention
from services.trainer.kernels import gpu_attention as sequences
from services.trainer.kernels.packed_attention import ATTENTION_NAME, can_pack
from services.trainer.kernels.packing import ARCHITECTURES
from services.trainer.training.base_model import trainable_adapter
from services.trainer.training.likelihood import collate, log_likelihoods
from shared.config.training import TrainingConfig
from tests.trainer.tiny import EXAMPLES, encode_pair

APART = [encode_pair(*pair) for pair in (("abc", "12"), ("de", "3"), ("f", "4567"), ("ghijk", "8"))]
ALIKE = [
    encode_pair(f"system:be brief {prompt}", answer)
    for prompt, answer in (("one", "1"), ("two", "22"), ("three", "3"), ("one", "111"))
]
EQUAL = [
    encode_pair(f"system:be brief {prompt}", answer)
    for prompt, answer in (("one", "1"), ("three", "4"), ("two", "2"), ("six", "3"))
]
SETS = {
    "apart": APART,
    "alike": ALIKE,
    "of one length": EQUAL,
    "two families": [*ALIKE[:2], *APART[:2], *ALIKE[2:]],
    "one": ALIKE[:1],
    "some alike": EXAMPLES,
}

PARTICULARS: dict[str, dict[str, Any]] = {
    "granite": {
        "logits_scaling": 3.0,
        "attention_multiplier": 0.5,
        "embedding_multiplier": 2.0,
        "residual_multiplier": 0.7,
    },
    "mistral": {"sliding_window": None},
    "phi3": {"sliding_window": None},
}


def tiny(model_type: str, **settings: Any) -> Any:
    torch.set_num_threads(1)  # so few weights take longer to share out than to multiply
    torch.manual_seed(3)
    config = AutoConfig.for_model(
        model_type,
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=256,
        initializer_range=0.3,
        pad_token_id=0,
        **settings,
    )
    causal: Any = AutoModelForCausalLM
    return causal.from_config(config, dtype=torch.float64).requires_grad_(False).eval()


def open_but_for_the_head(model: Any) -> Any:
    """The head stays frozen, as adapters leave it; embeddings that are one with it as well."""
    model.requires_grad_(True)
    model.get_output_embeddings().requires_grad_(False)
    return model


def one_at_a_time(model: Any, examples: Sequence[EncodedExample]) -> torch.Tensor:
    """The model's own forward pass with nothing of ours: row t of its logits predicts token t + 1."""
    found = []
    for example in examples:
        logits = (
            model(input_ids=torch.tensor([example.ids]), use_cache=False).logits[0].log_softmax(-1)
        )
        found += [
            logits[place - 1, example.ids[place]]
            for place in range(example.answer_start, len(example.ids))
        ]
    return torch.stack(found)


def assert_alike(model: Any, examples: Sequence[EncodedExample]) -> None:
    """Likelihoods, and the gradients of a weighted sum of them. Weights are double; the models take
    norms and rotations in fp32.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert parameters
    results = []
    for values in (
        one_at_a_time(model, examples),
        log_likelihoods(model, collate(examples, "cpu")),
    ):
        weighted: Any = (values * torch.linspace(0.5, 2, len(values), dtype=values.dtype)).sum()
        results.append((values.detach(), torch.autograd.grad(weighted, parameters)))
    (values, gradients), (others, other_gradients) = results
    torch.testing.assert_close(others, values, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(other_gradients, gradients, rtol=1e-3, atol=2e-5)
    assert max(float(gradient.abs().max()) for gradient in gradients) > 1e-3


@pytest.mark.parametrize("examples", SETS.values(), ids=SETS)
@pytest.mark.parametrize("model_type", sorted(ARCHITECTURES))
def test_every_architecture_that_is_packed_computes_what_it_computes_alone(
    model_type: str, examples: Sequence[EncodedExample]
) -> None:
    model = open_but_for_the_head(tiny(model_type, **PARTICULARS.get(model_type, {})))
    assert_alike(model, examples)
    assert model.config._attn_implementation == ATTENTION_NAME


@pytest.mark.parametrize("examples", SETS.values(), ids=SETS)
def test_examples_that_are_too_long_for_small_products_are_the_same(
    examples: Sequence[EncodedExample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(short_attention, "LONGEST", 0)
    assert_alike(open_but_for_the_head(tiny("llama")), examples)


@pytest.mark.parametrize("examples", SETS.values(), ids=SETS)
def test_what_a_gpu_attends_to_in_one_call_is_the_same(
    examples: Sequence[EncodedExample], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the kernel's contract, in plain words: the last query of a sequence sees its last key."""

    def in_words(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        query_starts: torch.Tensor,
        key_starts: torch.Tensor,
        *most: int,
        scale: float,
        **_: object,
    ) -> torch.Tensor:
        found = []
        for place in range(len(query_starts) - 1):
            own = slice(int(query_starts[place]), int(query_starts[place + 1]))
            seen = slice(int(key_starts[place]), int(key_starts[place + 1]))
            assert own.stop - own.start <= most[0]
            assert seen.stop - seen.start <= most[1]
            bias: Any = causal_lower_right(own.stop - own.start, seen.stop - seen.start)
            states = [
                query[own],
                *(
                    each[seen].repeat_interleave(query.shape[1] // key.shape[1], 1)
                    for each in (key, value)
                ),
            ]
            q, k, v = (state.transpose(0, 1)[None] for state in states)
            found.append(
                scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)[0].transpose(
                    0, 1
                )
            )
        return torch.cat(found)

    monkeypatch.setattr(short_attention, "LONGEST", 0)
    monkeypatch.setattr(sequences, "can_attend", lambda query, dropout: True)
    monkeypatch.setattr(sequences, "varlen_attn", in_words)
    assert_alike(open_but_for_the_head(tiny("llama")), examples)


@pytest.mark.parametrize("model_type", ["llama", "qwen2"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_an_adapter_learns_the_same(model_type: str, checkpointing: bool) -> None:
    with trainable_adapter(tiny(model_type), TrainingConfig(rank=4, alpha=8), None) as model:
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                weight.data = torch.randn(weight.shape, dtype=torch.float64) * (
                    0.3 if "lora_B" in name else 1
                )
        if checkpointing:
            model.enable_input_require_grads()
            model.gradient_checkpointing_enable(
                gradient_checkpointing_kwargs={"use_reentrant": False}
            )
            model.train()
        assert_alike(model, SETS["two families"])


@pytest.mark.parametrize(
    ("model_type", "settings"),
    [
        ("mistral", {"sliding_window": 4}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
        ("gemma2", {"sliding_window": 4}),
        ("llama", {"attn_implementation": "eager"}),
        ("stablelm", {}),
    ],
)
def test_what_cannot_be_packed_is_padded(model_type: str, settings: dict[str, Any]) -> None:
    model = tiny(model_type, **settings).requires_grad_(True)
    before = model.config._attn_implementation
    assert not can_pack(model)
    assert_alike(model, SETS["two families"])
    assert model.config._attn_implementation == before


def test_a_model_that_packs_still_answers_as_it_did() -> None:
    """Padding and a cache, as greedy answers use them, through the same attention."""
    model = tiny("llama")
    ids = torch.tensor([[0, 0, 5, 6], [7, 8, 9, 10]])
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])

    def answered() -> torch.Tensor:
        generated: torch.Tensor = model.generate(
            ids, attention_mask=mask, max_new_tokens=8, do_sample=False
        )
        return torch.cat([generated, model(generated).logits.argmax(-1)], dim=1)

    with torch.inference_mode():
        before = answered()
        log_likelihoods(model, collate(ALIKE, "cpu"))
        assert model.config._attn_implementation == ATTENTION_NAME
        assert torch.equal(answered(), before)
