"""A conversation as token ids, with the place where the answer begins; the same for training,
evaluation and greedy answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from services.trainer.data.training_set import Sample
from shared.events import Message


@dataclass(frozen=True)
class Vocabulary:
    """A base's tokenizer, and the tokens that end a turn as the model's own configuration names
    them, the one to learn first.

    A tokenizer's `eos_token` is not to be trusted for it: files converted from GGUF are known to
    name another.
    """

    tokenizer: Any
    end_tokens: tuple[int, ...]


@dataclass(frozen=True)
class EncodedExample:
    """Token ids of a prompt and its answer; the answer is `ids[answer_start:]` and ends with the
    end of the turn unless it was cut off. `weight` is what the example counts in training.
    """

    ids: tuple[int, ...]
    answer_start: int
    weight: float = 1.0

    @property
    def answer_tokens(self) -> int:
        return len(self.ids) - self.answer_start


def encode(vocabulary: Vocabulary, sample: Sample, max_tokens: int) -> EncodedExample:
    """Prompt and answer in at most `max_tokens`. What is too long loses the beginning of its prompt
    first, then the end of its answer.

    The answer is tokenised by itself, as a server that has just read the prompt would produce it.
    """
    answer = [
        *vocabulary.tokenizer(sample.answer, add_special_tokens=False)["input_ids"],
        vocabulary.end_tokens[0],
    ][: max_tokens - 1]
    prompt = encode_prompt(vocabulary, sample.messages, max_tokens - len(answer))
    return EncodedExample((*prompt, *answer), len(prompt), sample.weight)


def encode_prompt(
    vocabulary: Vocabulary, messages: Sequence[Message], max_tokens: int
) -> tuple[int, ...]:
    """The last `max_tokens` tokens of a conversation in the model's own template, up to where its
    answer begins.
    """
    turns = [message.model_dump() for message in messages]
    text = vocabulary.tokenizer.apply_chat_template(
        turns, tokenize=False, add_generation_prompt=True
    )
    return tuple(vocabulary.tokenizer(text, add_special_tokens=False)["input_ids"][-max_tokens:])
