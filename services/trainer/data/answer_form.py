"""The form in which a base's chat template writes an answer after its prompt.

An answer is learned and scored as a continuation of the prompt with which a server asks for it. So
prompt and answer must begin the template's own rendering of the whole conversation. Some templates
put something between them: white space becomes part of the trained answer; a thinking block that
the prompt closes, empty, is left out of finished conversations by some templates, and changes
nothing. With anything else the answer would be learned in the wrong place, and the base is refused.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.messaging.reasoning import with_reasoning

Conversation = Sequence[Mapping[str, str]]

_ANSWER = "answer"
_SHAPES: Sequence[Sequence[str]] = (
    ("user",),
    ("system", "user"),
    ("user", "assistant", "user"),
)
_OPENED = re.compile(r"<(?:think|thinking|seed:think)>\s*\Z|\[THINK\]\s*\Z")
_CLOSED_EMPTY = re.compile(r"(?:<think>\s*)?</think>\s*\Z")


class UnsuitableTemplate(ValueError):
    """A chat template with which answers would be learned in another place than they are served."""


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """`before` is white space that belongs to an answer's first token. `context` is the text after
    which an answer is encoded: a tokenizer may treat the beginning of a text otherwise.
    """

    before: str = ""
    context: str = ""


PLAIN = AnswerForm()


def answer_form(tokenizer: Any, variables: Mapping[str, Any]) -> AnswerForm:
    """Compare the template's prompts with its whole conversations. Raises UnsuitableTemplate."""
    answer = with_reasoning(_ANSWER, "reason") if variables.get("enable_thinking") else _ANSWER
    found = []
    for shape in _SHAPES:
        turns = [{"role": role, "content": f"{role} {place}"} for place, role in enumerate(shape)]
        try:
            prompt = tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=True, **variables
            )
            whole = tokenizer.apply_chat_template(
                [*turns, {"role": "assistant", "content": answer}], tokenize=False, **variables
            )
        # A template raises what its author chose. Only a lone question must be accepted.
        except Exception as error:
            if shape == _SHAPES[0]:
                raise UnsuitableTemplate(
                    f"its chat template refuses a question with its answer: {error}"
                ) from error
            continue
        found.append((prompt, whole, _between(prompt, whole, answer)))
    before = {between for _, _, between in found}
    if len(before) > 1:
        raise UnsuitableTemplate("its chat template begins an answer in several ways")
    prompt, whole, between = found[0]
    return _exact_form(tokenizer, prompt, whole, answer, between)


def _between(prompt: str, whole: str, answer: str) -> str:
    """Return the white space between a prompt and its answer. Raises UnsuitableTemplate."""
    rest = _continuation(prompt, whole)
    if rest is not None and answer in rest:
        between = rest[: rest.index(answer)]
        if not between.strip():
            return between
        raise UnsuitableTemplate(
            f"its chat template writes {between!r} between a prompt and its answer, and a server "
            "leaves that to the model"
        )
    if _OPENED.search(prompt):
        raise UnsuitableTemplate(
            "its chat template opens a block of thinking before each answer, so that answers would "
            "be learned as thoughts, and a server would return them as such"
        )
    raise UnsuitableTemplate(
        f"its chat template asks for an answer with {prompt[-40:]!r}, and writes another text "
        "before it in a whole conversation"
    )


def _continuation(prompt: str, whole: str) -> str | None:
    """Return what follows a prompt in the whole conversation, with or without a thinking block that
    the prompt ends with, empty; None if the conversation does not begin with the prompt.
    """
    if whole.startswith(prompt):
        return whole[len(prompt) :]
    if (block := _CLOSED_EMPTY.search(prompt)) and whole.startswith(
        start := prompt[: block.start()]
    ):
        return whole[len(start) :].lstrip()
    return None


def _exact_form(tokenizer: Any, prompt: str, whole: str, answer: str, between: str) -> AnswerForm:
    """Return the form that gives the tokens of the whole conversation; if none does, since a token
    crosses the beginning of the answer, the form that gives its text.
    """

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    prompt_ids, whole_ids = encode(prompt), encode(whole)
    for form in _forms(prompt, between):
        context = encode(form.context)
        ids = encode(form.context + form.before + answer)
        expected = [*prompt_ids, *ids[len(context) :]]
        if ids[: len(context)] == context and whole_ids[: len(expected)] == expected:
            return form
    return AnswerForm(between)


def _forms(prompt: str, between: str) -> Iterator[AnswerForm]:
    yield PLAIN
    yield AnswerForm(between)
    yield AnswerForm(between, prompt[-1:])
