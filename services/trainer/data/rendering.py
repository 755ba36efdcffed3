"""Rendering of a conversation with a base's own chat template, up to where its answer begins.

Some templates refuse conversations that applications have: they require turns that alternate and
begin with the user's, or know no system message. For a template that refuses a conversation, and
only then, the conversation is adapted, as far as necessary:

1. assistant turns before the first user turn are left out, and turns of the same role in succession
   become one, with a blank line between their texts;
2. a system message becomes the beginning of the user turn after it, or the end of the one before
   it, with a line break between: llama.cpp's server does the same for templates without system
   messages.

What is refused then as well, such as tool turns, cannot be trained on with this base.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from shared.config.template_variables import DEFAULT_VARIABLES, TemplateVariables
from shared.events import Message

Turns = Sequence[tuple[str, str]]  # (role, text)


class TemplateRefused(Exception):
    """A conversation that a base's chat template refuses, adapted or not; with its reason."""


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """The text of a prompt; `is_adapted` if the template refuses the conversation as it is."""

    text: str
    is_adapted: bool = False


def render(
    tokenizer: Any, messages: Sequence[Message], variables: TemplateVariables = DEFAULT_VARIABLES
) -> RenderedPrompt:
    """Render a prompt, adapted if the template refuses it. Raises TemplateRefused."""
    turns = [(message.role, message.content) for message in messages]
    refusal = None
    for candidate in _candidates(turns):
        try:
            text = tokenizer.apply_chat_template(
                [{"role": role, "content": content} for role, content in candidate],
                tokenize=False,
                add_generation_prompt=True,
                **variables.model_dump(),
            )
        # A template raises what its author chose, and what its code runs into.
        except Exception as error:
            refusal = refusal or error
        else:
            return RenderedPrompt(text, is_adapted=refusal is not None)
    raise TemplateRefused(f"the chat template refuses it: {refusal}") from refusal


def depends_on_day(tokenizer: Any, variables: TemplateVariables) -> bool:
    """True if a template writes today's date although it was given one. A template that refuses a
    question does not.
    """
    question = [{"role": "user", "content": "question"}]

    def rendered(today: str) -> Any:
        return tokenizer.apply_chat_template(
            question,
            tokenize=False,
            strftime_now=lambda _: today,
            **variables.model_dump(),
        )

    try:
        return bool(rendered("today") != rendered("tomorrow"))
    # A template raises what its author chose.
    except Exception:
        return False


def _candidates(turns: Turns) -> Iterator[Turns]:
    yield turns
    merged = merge_turns(turns)
    if any(role == "user" for role, _ in merged):
        yield merged
        yield merge_turns(fold_system_messages(merged))


def merge_turns(turns: Turns) -> Turns:
    """Leave out assistant turns before the first user turn; join successive turns of one role."""
    kept = []
    has_user_turn = False
    for role, text in turns:
        has_user_turn = has_user_turn or role == "user"
        if role != "assistant" or has_user_turn:
            kept.append((role, text))
    return [
        (role, "\n\n".join(text for _, text in group))
        for role, group in groupby(kept, key=lambda turn: turn[0])
    ]


def fold_system_messages(turns: Turns) -> Turns:
    """Make each system message part of the next user turn, or else of the last one."""
    folded: list[tuple[str, str]] = []
    waiting: list[str] = []
    for role, text in turns:
        if role == "system":
            waiting.append(text)
        elif role == "user":
            folded.append((role, "\n".join([*waiting, text])))
            waiting = []
        else:
            folded.append((role, text))
    for place in reversed(range(len(folded))):
        if folded[place][0] == "user":
            folded[place] = ("user", "\n".join([folded[place][1], *waiting]))
            break
    return folded
