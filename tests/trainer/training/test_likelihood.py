"""Packed or padded, with or without an adapter: likelihoods and gradients match those of single
examples.
"""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoConfig, AutoModelForCausalLM

from services.trainer.data.tokenization import EncodedExample
from services.trainer.kernels import cpu_attention, gpu_attention
from services.trainer.kernels.packed_attention import ATTENTION_NAME, can_pack
from services.trainer.kernels.packing import ARCHITECTURES
from services.trainer.training.base_model import trainable_adapter
from services.trainer.training.likelihood import collate, log_likelihoods
from shared.config.training import TrainingConfig
from tests.trainer.tiny import EXAMPLES, encode_pair

DIFFERENT = [
    encode_pair(*pair) for pair in (("abc", "12"), ("de", "3"), ("f", "4567"), ("ghijk", "8"))
]
SHARED_PREFIX = [
    encode_pair(f"system:be brief {prompt}", answer)
    for prompt, answer in (("one", "1"), ("two", "22"), ("three", "3"), ("one", "111"))
]
EQUAL_LENGTH = [
    encode_pair(f"system:be brief {prompt}", answer)
    for prompt, answer in (("one", "1"), ("three", "4"), ("two", "2"), ("six", "3"))
]
SETS = {
    "different": DIFFERENT,
    "shared prefix": SHARED_PREFIX,
    "equal length": EQUAL_LENGTH,
    "two groups": [*SHARED_PREFIX[:2], *DIFFERENT[:2], *SHARED_PREFIX[2:]],
    "one": SHARED_PREFIX[:1],
    "partly shared": EXAMPLES,
}

ARCHITECTURE_SETTINGS: dict[str, dict[str, Any]] = {
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
    torch.set_num_threads(1)  # for so few weights, threads cost more than they save
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


def trainable_except_head(model: Any) -> Any:
    """Make all weights except the head trainable. Tied embeddings stay frozen with the head, as
    with adapters.
    """
    model.requires_grad_(True)
    model.get_output_embeddings().requires_grad_(False)
    return model


def one_at_a_time(model: Any, examples: Sequence[EncodedExample]) -> torch.Tensor:
    """Compute likelihoods with the model's unmodified forward pass: row t of its logits predicts
    token t + 1.
    """
    likelihoods = []
    for example in examples:
        logits = (
            model(input_ids=torch.tensor([example.ids]), use_cache=False).logits[0].log_softmax(-1)
        )
        likelihoods += [
            logits[position - 1, example.ids[position]]
            for position in range(example.answer_start, len(example.ids))
        ]
    return torch.stack(likelihoods)


def assert_alike(model: Any, examples: Sequence[EncodedExample]) -> None:
    """Compare likelihoods and the gradients of a weighted sum. Weights are double; models compute
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
    (values, gradients), (packed, packed_gradients) = results
    torch.testing.assert_close(packed, values, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(packed_gradients, gradients, rtol=1e-3, atol=2e-5)
    assert max(float(gradient.abs().max()) for gradient in gradients) > 1e-3


@pytest.mark.parametrize("examples", SETS.values(), ids=SETS)
@pytest.mark.parametrize("model_type", sorted(ARCHITECTURES))
def test_packed_architectures_match_single_examples(
    model_type: str, examples: Sequence[EncodedExample]
) -> None:
    model = trainable_except_head(tiny(model_type, **ARCHITECTURE_SETTINGS.get(model_type, {})))
    assert_alike(model, examples)
    assert model.config._attn_implementation == ATTENTION_NAME


@pytest.mark.parametrize("examples", SETS.values(), ids=SETS)
def test_long_examples_match_single_examples(
    examples: Sequence[EncodedExample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_attention, "MAX_KEYS", 0)
    assert_alike(trainable_except_head(tiny("llama")), examples)


@pytest.mark.parametrize("examples", SETS.values(), ids=SETS)
def test_varlen_attention_matches_single_examples(
    examples: Sequence[EncodedExample], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uses a plain implementation of the kernel's contract: the last query of a sequence sees its
    last key.
    """

    def reference_varlen_attention(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        query_starts: torch.Tensor,
        key_starts: torch.Tensor,
        *longest: int,
        scale: float,
        **_: object,
    ) -> torch.Tensor:
        outputs = []
        for index in range(len(query_starts) - 1):
            queries = slice(int(query_starts[index]), int(query_starts[index + 1]))
            keys = slice(int(key_starts[index]), int(key_starts[index + 1]))
            assert queries.stop - queries.start <= longest[0]
            assert keys.stop - keys.start <= longest[1]
            bias: Any = causal_lower_right(queries.stop - queries.start, keys.stop - keys.start)
            states = [
                query[queries],
                *(
                    each[keys].repeat_interleave(query.shape[1] // key.shape[1], 1)
                    for each in (key, value)
                ),
            ]
            q, k, v = (state.transpose(0, 1)[None] for state in states)
            outputs.append(
                scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)[0].transpose(
                    0, 1
                )
            )
        return torch.cat(outputs)

    monkeypatch.setattr(cpu_attention, "MAX_KEYS", 0)
    monkeypatch.setattr(gpu_attention, "can_attend", lambda query, dropout: True)
    monkeypatch.setattr(gpu_attention, "varlen_attn", reference_varlen_attention)
    assert_alike(trainable_except_head(tiny("llama")), examples)


@pytest.mark.parametrize("model_type", ["llama", "qwen2"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_adapter_gradients_match_single_examples(model_type: str, checkpointing: bool) -> None:
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
        assert_alike(model, SETS["two groups"])


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
def test_other_models_are_padded(model_type: str, settings: dict[str, Any]) -> None:
    model = tiny(model_type, **settings).requires_grad_(True)
    before = model.config._attn_implementation
    assert not can_pack(model)
    assert_alike(model, SETS["two groups"])
    assert model.config._attn_implementation == before


def test_generation_is_unchanged_by_packed_attention() -> None:
    """Generation uses padding and a cache through the same attention function."""
    model = tiny("llama")
    ids = torch.tensor([[0, 0, 5, 6], [7, 8, 9, 10]])
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])

    def generated_ids() -> torch.Tensor:
        generated: torch.Tensor = model.generate(
            ids, attention_mask=mask, max_new_tokens=8, do_sample=False
        )
        return torch.cat([generated, model(generated).logits.argmax(-1)], dim=1)

    with torch.inference_mode():
        before = generated_ids()
        log_likelihoods(model, collate(SHARED_PREFIX, "cpu"))
        assert model.config._attn_implementation == ATTENTION_NAME
        assert torch.equal(generated_ids(), before)
