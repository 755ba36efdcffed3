"""A base of random weights and random examples of varied length with a shared prefix: speed and
memory benchmarks without downloads.
"""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from services.trainer.data.tokenization import EncodedExample

SYSTEM_TOKENS = 100
PROMPTS, ANSWERS = (40, 300), (20, 150)


def llama_1b_config() -> LlamaConfig:
    """Dimensions of Llama 3.2 1B, with a vocabulary of 32,000."""
    return LlamaConfig(
        vocab_size=32_000,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=4096,
    )


def save_random(config: LlamaConfig, folder: Path, device: str) -> None:
    """Save a model of random bf16 weights, and a tokenizer in which each token is its number."""
    model_class: Any = LlamaForCausalLM
    torch.manual_seed(0)
    with torch.device(device):
        model = model_class(config)
    model.to(torch.bfloat16).save_pretrained(folder)
    numbers = Tokenizer(
        WordLevel({str(number): number for number in range(config.vocab_size)}, unk_token="0")
    )
    tokenizer_class: Any = PreTrainedTokenizerFast
    tokenizer_class(
        tokenizer_object=numbers, pad_token="0", eos_token="1", unk_token="0"
    ).save_pretrained(folder)


def random_examples(count: int, vocabulary: int) -> list[EncodedExample]:
    """Generate a common system prompt, then a prompt and an answer with uniformly distributed
    lengths.
    """
    generator = torch.Generator().manual_seed(0)

    def drawn(length: int) -> list[int]:
        ids: list[int] = torch.randint(vocabulary, (length,), generator=generator).tolist()
        return ids

    def length(least: int, most: int) -> int:
        return int(torch.randint(least, most + 1, (), generator=generator))

    system = drawn(SYSTEM_TOKENS)
    examples = []
    for _ in range(count):
        prompt, answer = drawn(length(*PROMPTS)), drawn(length(*ANSWERS))
        examples.append(EncodedExample((*system, *prompt, *answer), SYSTEM_TOKENS + len(prompt)))
    return examples
