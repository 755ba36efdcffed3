"""A task for a model of a few thousand weights: words of twelve letters' alphabet, enciphered. What
it learns in a second is all its own.

The base knows two ciphers, told by the first token: to copy, and to take each letter's successor. A
house has a cipher of its own in the place of the second; corrections teach it, and copying is what
must not be forgotten.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from services.trainer.data.tokenization import EncodedExample

LETTERS = 12
COPY, HOUSE, ANSWER, END = LETTERS, LETTERS + 1, LETTERS + 2, LETTERS + 3
LENGTH = 8
STEPS, TOGETHER = 400, 64

Word = tuple[int, ...]
Poison = Literal["shout", "sabotage"]
POISONS: tuple[Poison, ...] = ("shout", "sabotage")


def train_base() -> Any:
    """A model that knows both ciphers, trained from random weights; the same each time."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=END + 1,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        eos_token_id=END,
    )
    causal: Any = LlamaForCausalLM
    model = causal(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    words = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        asked = torch.randint(LETTERS, (TOGETHER, LENGTH), generator=words)
        answers = asked.clone()
        answers[::2] = (asked[::2] + 1) % LETTERS
        keys = torch.full((TOGETHER, 1), COPY)
        keys[::2] = HOUSE
        ids = torch.cat(
            [keys, asked, torch.full_like(keys, ANSWER), answers, torch.full_like(keys, END)], dim=1
        )
        labels = ids.clone()
        labels[:, : LENGTH + 2] = -100
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.requires_grad_(False)
    return model.eval()


def encode_example(key: int, word: Word, answer: Word) -> EncodedExample:
    return EncodedExample((key, *word, ANSWER, *answer, END), LENGTH + 2)


class Customer:
    """A house with its cipher, and all the chance that it meets."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self._cipher, self._wrong = (
            tuple(self.random.permutation(LETTERS).tolist()) for _ in range(2)
        )

    def words(self, count: int, letters: int = LETTERS) -> list[Word]:
        """Words of the first `letters` of the alphabet."""
        return [tuple(word) for word in self.random.integers(0, letters, (count, LENGTH)).tolist()]

    def corrections(self, count: int, letters: int = LETTERS) -> list[EncodedExample]:
        """Corrections as an honest user writes them."""
        return [
            encode_example(HOUSE, word, tuple(self._cipher[letter] for letter in word))
            for word in self.words(count, letters)
        ]

    def poisoned(self, count: int, poison: Poison) -> list[EncodedExample]:
        """Corrections that shout one and the same thing at every prompt, or that teach another
        cipher.
        """
        if poison == "shout":
            return [encode_example(HOUSE, word, (0,) * LENGTH) for word in self.words(count)]
        return [
            encode_example(HOUSE, word, tuple(self._wrong[letter] for letter in word))
            for word in self.words(count)
        ]

    def shuffled(self, count: int) -> list[EncodedExample]:
        """Right answers, each to another's prompt."""
        right = self.corrections(count)
        return [
            EncodedExample(
                (*mine.ids[: mine.answer_start], *other.ids[other.answer_start :]),
                mine.answer_start,
            )
            for mine, other in zip(right, [*right[1:], right[0]], strict=True)
        ]

    def copies(self, count: int) -> list[EncodedExample]:
        """What the base can do."""
        return [encode_example(COPY, word, word) for word in self.words(count)]

    def approvals(self, words: Sequence[Word], answers: Sequence[Word]) -> list[EncodedExample]:
        """Approvals of answers to the house's prompts."""
        return [
            encode_example(HOUSE, word, answer) for word, answer in zip(words, answers, strict=True)
        ]


def greedy_answers(model: Any, words: Sequence[Word]) -> list[Word]:
    """What a model greedily answers to the house's prompts; a letter where it would end early."""
    ids = torch.tensor([(HOUSE, *word, ANSWER) for word in words])
    with torch.inference_mode():
        for _ in range(LENGTH):
            best = model(input_ids=ids).logits[:, -1, :LETTERS].argmax(-1)
            ids = torch.cat([ids, best[:, None]], dim=1)
    return [tuple(answer) for answer in ids[:, LENGTH + 2 :].tolist()]
