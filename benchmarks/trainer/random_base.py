"""A base of random weights, and random examples of varied length that begin alike: what speed and
memory can be measured on without any download.
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
    """The measures of Llama 3.2 1B, with a vocabulary of 32,000."""
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
    """A model of random weights in bf16, and a tokenizer in which each token is its number."""
    causal: Any = LlamaForCausalLM
    torch.manual_seed(0)
    with torch.device(device):
        model = causal(config)
    model.to(torch.bfloat16).save_pretrained(folder)
    numbers = Tokenizer(
        WordLevel({str(number): number for number in range(config.vocab_size)}, unk_token="0")
    )
    fast: Any = PreTrainedTokenizerFast
    fast(tokenizer_object=numbers, pad_token="0", eos_token="1", unk_token="0").save_pretrained(
        folder
    )


def random_examples(count: int, vocabulary: int) -> list[EncodedExample]:
    """A system prompt that is the same for all, then a prompt and an answer of any length between
    bounds, all equally often.
    """
    generator = torch.Generator().manual_seed(0)

    def drawn(length: int) -> list[int]:
        found: list[int] = torch.randint(vocabulary, (length,), generator=generator).tolist()
        return found

    def length(least: int, most: int) -> int:
        return int(torch.randint(least, most + 1, (), generator=generator))

    system = drawn(SYSTEM_TOKENS)
    found = []
    for _ in range(count):
        prompt, answer = drawn(length(*PROMPTS)), drawn(length(*ANSWERS))
        found.append(EncodedExample((*system, *prompt, *answer), SYSTEM_TOKENS + len(prompt)))
    return found
