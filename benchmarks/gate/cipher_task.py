"""A task for a model of a few thousand weights, trained in seconds: enciphering words of a twelve-
letter alphabet.

The base knows two ciphers, selected by the first token: copying, and each letter's successor. A
customer replaces the second by its own cipher. Corrections teach that cipher, and copying is the
ability that must not be forgotten.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from services.trainer.data.tokenization import EncodedExample

LETTERS = 12
COPY_CIPHER, CUSTOMER_CIPHER, ANSWER, END = LETTERS, LETTERS + 1, LETTERS + 2, LETTERS + 3
LENGTH = 8
TRAINING_STEPS, BATCH_SIZE = 400, 64

Word = tuple[int, ...]
Poison = Literal["shout", "sabotage"]
POISONS: tuple[Poison, ...] = ("shout", "sabotage")


def train_base() -> Any:
    """Train a model from random weights to know both ciphers; deterministic."""
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
    generator = torch.Generator().manual_seed(0)
    for _ in range(TRAINING_STEPS):
        words = torch.randint(LETTERS, (BATCH_SIZE, LENGTH), generator=generator)
        answers = words.clone()
        answers[::2] = (words[::2] + 1) % LETTERS
        keys = torch.full((BATCH_SIZE, 1), COPY_CIPHER)
        keys[::2] = CUSTOMER_CIPHER
        ids = torch.cat(
            [keys, words, torch.full_like(keys, ANSWER), answers, torch.full_like(keys, END)], dim=1
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
    """A customer with its cipher and its source of randomness."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self._cipher, self._wrong = (
            tuple(self.random.permutation(LETTERS).tolist()) for _ in range(2)
        )

    def words(self, count: int, letters: int = LETTERS) -> list[Word]:
        """Return words of the first `letters` of the alphabet."""
        return [tuple(word) for word in self.random.integers(0, letters, (count, LENGTH)).tolist()]

    def corrections(self, count: int, letters: int = LETTERS) -> list[EncodedExample]:
        """Return corrections as an honest user writes them."""
        return [
            encode_example(CUSTOMER_CIPHER, word, tuple(self._cipher[letter] for letter in word))
            for word in self.words(count, letters)
        ]

    def poisoned(self, count: int, poison: Poison) -> list[EncodedExample]:
        """Return corrections with the same shout for every prompt, or that teach another cipher."""
        if poison == "shout":
            return [
                encode_example(CUSTOMER_CIPHER, word, (0,) * LENGTH) for word in self.words(count)
            ]
        return [
            encode_example(CUSTOMER_CIPHER, word, tuple(self._wrong[letter] for letter in word))
            for word in self.words(count)
        ]

    def shuffled(self, count: int) -> list[EncodedExample]:
        """Return correct answers, each to another example's prompt."""
        examples = self.corrections(count)
        return [
            EncodedExample(
                (
                    *example.ids[: example.answer_start],
                    *next_example.ids[next_example.answer_start :],
                ),
                example.answer_start,
            )
            for example, next_example in zip(examples, [*examples[1:], examples[0]], strict=True)
        ]

    def copies(self, count: int) -> list[EncodedExample]:
        """Return examples of the base's ability to copy."""
        return [encode_example(COPY_CIPHER, word, word) for word in self.words(count)]

    def approvals(self, words: Sequence[Word], answers: Sequence[Word]) -> list[EncodedExample]:
        """Return approvals of answers to the customer's prompts."""
        return [
            encode_example(CUSTOMER_CIPHER, word, answer)
            for word, answer in zip(words, answers, strict=True)
        ]


def greedy_answers(model: Any, words: Sequence[Word]) -> list[Word]:
    """Return a model's greedy answers to the customer's prompts, always of full length."""
    ids = torch.tensor([(CUSTOMER_CIPHER, *word, ANSWER) for word in words])
    with torch.inference_mode():
        for _ in range(LENGTH):
            best = model(input_ids=ids).logits[:, -1, :LETTERS].argmax(-1)
            ids = torch.cat([ids, best[:, None]], dim=1)
    return [tuple(answer) for answer in ids[:, LENGTH + 2 :].tolist()]
