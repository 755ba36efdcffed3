"""Tokenisation of conversations, with the position at which the answer begins. Training, evaluation
and generation use the same code. Text is plain text: the string of a control token in it does not
become the token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from services.trainer.data.answer_form import PLAIN, AnswerForm
from services.trainer.data.control_text import ControlText
from services.trainer.data.rendering import render
from services.trainer.data.training_set import Sample
from shared.config.template_variables import DEFAULT_VARIABLES, TemplateVariables
from shared.events import Message


@dataclass(frozen=True)
class Vocabulary:
    """A base's tokenizer and its end-of-turn tokens, of which training uses the first one; the
    variables of its chat template, and the form of answers in it. `depends_on_day` is True if the
    template writes today's date. `first_token` is what the tokenizer puts before every text, None
    if nothing. `warnings` describe what a person should know of the base.

    The tokenizer's `eos_token` is not reliable: files converted from GGUF are known to name a
    different token.
    """

    tokenizer: Any
    end_tokens: tuple[int, ...]
    template: TemplateVariables = DEFAULT_VARIABLES
    answer_form: AnswerForm = PLAIN
    depends_on_day: bool = False
    first_token: int | None = None
    warnings: tuple[str, ...] = ()

    @cached_property
    def control_text(self) -> ControlText:
        return ControlText(self.tokenizer)

    def encode_answer(self, text: str) -> list[int]:
        """Encode an answer as the chat template writes it after its prompt, without its end."""
        form = self.answer_form
        ids = self.control_text.encode(form.context + form.before + text)
        return ids[len(self._context) :]

    def decode_answer(self, ids: Sequence[int]) -> str:
        """Decode a whole answer: the inverse of `encode_answer`."""
        text = self._decode([*self._context, *ids])[len(self._decode(self._context)) :]
        return text.removeprefix(self.answer_form.before)

    def decode_token(self, token: int) -> str:
        """Decode a token inside a text, with the blank before it: SentencePiece tokenizers drop it
        at the beginning of a text. A part of a character becomes U+FFFD.
        """
        return self._decode([*self._letter, token])[len(self._decode(self._letter)) :]

    @cached_property
    def _context(self) -> Sequence[int]:
        form = self.answer_form
        return self.control_text.encode(form.context) if form.context else ()

    @cached_property
    def _letter(self) -> Sequence[int]:
        return self.control_text.encode("a")

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))


@dataclass(frozen=True)
class EncodedExample:
    """Token ids of a prompt and its answer. The answer is `ids[answer_start:]` and ends with the
    end-of-turn token unless it was truncated. `weight` is the example's weight in training.
    """

    ids: tuple[int, ...]
    answer_start: int
    weight: float = 1.0

    @property
    def answer_tokens(self) -> int:
        return len(self.ids) - self.answer_start


def encode(vocabulary: Vocabulary, sample: Sample, max_tokens: int) -> EncodedExample:
    """Encode a prompt and its answer in at most `max_tokens`. Truncation removes the beginning of
    the prompt first, then the end of the answer. Raises TemplateRefused.

    The answer is tokenised separately, as a server generates it after reading the prompt.
    """
    answer = [
        *vocabulary.encode_answer(sample.answer),
        vocabulary.end_tokens[0],
    ][: max_tokens - 1]
    prompt = encode_prompt(vocabulary, sample.messages, max_tokens - len(answer))
    return EncodedExample((*prompt, *answer), len(prompt), sample.weight)


def encode_prompt(
    vocabulary: Vocabulary, messages: Sequence[Message], max_tokens: int
) -> tuple[int, ...]:
    """Encode a conversation with the model's own chat template up to where its answer begins; keeps
    the last `max_tokens` tokens. Raises TemplateRefused.

    A tokenizer that begins every text with a token does so here as well, once: a server adds it to
    prompts whose template does not write it.
    """
    control = vocabulary.control_text
    texts, hidden = control.hide([message.content for message in messages])
    turns = [
        Message(role=message.role, content=text)
        for message, text in zip(messages, texts, strict=True)
    ]
    rendered = render(vocabulary.tokenizer, turns, vocabulary.template)
    ids = control.encode_rendered(rendered.text, hidden)
    first = vocabulary.first_token
    if first is not None and ids[:1] != [first]:
        ids = [first, *ids]
    return tuple(ids[-max_tokens:])


def is_exact(vocabulary: Vocabulary, messages: Sequence[Message]) -> bool:
    """True if a server that renders the base's template makes the same tokens of a conversation.
    Raises TemplateRefused.
    """
    control = vocabulary.control_text
    return not (
        render(vocabulary.tokenizer, messages, vocabulary.template).is_adapted
        or any(control.occurs_in(message.content) for message in messages)
    )
