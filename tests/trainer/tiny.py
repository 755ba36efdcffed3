"""A Llama with a few thousand random weights and a character tokenizer: training takes
milliseconds.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from services.trainer.data.tokenization import EncodedExample, Vocabulary

LETTERS = "abcdefghijklmnopqrstuvwxyz :{}0123456789"
END = len(LETTERS)


class CharacterTokenizer:
    """One token per character; the template writes role and content of each turn."""

    added_tokens_decoder: Mapping[int, Any] = {}

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        assert not add_special_tokens
        return {"input_ids": [LETTERS.index(letter) for letter in text]}

    def apply_chat_template(
        self,
        turns: list[dict[str, str]],
        tokenize: bool,
        add_generation_prompt: bool,
        **variables: object,
    ) -> str:
        assert not tokenize
        assert add_generation_prompt
        return "".join(f"{turn['role']}:{turn['content']} " for turn in turns) + "assistant:"

    def decode(self, ids: list[int], clean_up_tokenization_spaces: bool) -> str:
        assert not clean_up_tokenization_spaces
        return "".join((LETTERS + "$")[token] for token in ids)


VOCABULARY = Vocabulary(CharacterTokenizer(), (END,))


def tiny_model(seed: int = 0) -> Any:
    torch.set_num_threads(1)  # for so few weights, threads cost more than they save
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=END + 1,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        eos_token_id=END,
        initializer_range=0.3,
    )
    causal: Any = LlamaForCausalLM
    model = causal(config)
    model.requires_grad_(False)
    return model.eval()


TEMPLATE = "{% for turn in messages %}{{ turn.role }}:{{ turn.content }} {% endfor %}assistant:"


def save_tiny(folder: Path, template: str = TEMPLATE) -> None:
    """Save model and tokenizer as files for another process; characters outside the tokenizer's
    alphabet become spaces.
    """
    letters = {letter: number for number, letter in enumerate(LETTERS + "$")}
    tokenizer = Tokenizer(WordLevel(letters, unk_token=" "))
    tokenizer.pre_tokenizer = Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast: Any = PreTrainedTokenizerFast
    fast(tokenizer_object=tokenizer, eos_token="$", chat_template=template).save_pretrained(folder)
    tiny_model().save_pretrained(folder)


def encode_pair(prompt: str, answer: str) -> EncodedExample:
    before, after = ([LETTERS.index(letter) for letter in text] for text in (prompt, answer))
    return EncodedExample((*before, *after, END), len(before))


EXAMPLES = [
    encode_pair(*pair)
    for pair in (
        ("one", "a"),
        ("two words", "bb"),
        ("three", "abc"),
        ("four is more", "d"),
        ("five", "eeeee"),
        ("six", "f"),
        ("seven seven", "gg"),
        ("eight", "h1"),
    )
]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")
