"""End-of-turn tokens of a base, first the token with which its chat template ends an answer.

The configuration of a base lists the tokens at which generation stops, in no useful order: that of
Llama 3 begins with a token that its chat template never writes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_QUESTION, _ANSWER = "question", "answer"


class NoEndOfTurn(ValueError):
    """A base with no token that ends an answer."""


@dataclass(frozen=True, slots=True)
class EndOfTurn:
    """Tokens at which an answer ends. Training uses the first one. `warning` describes a conflict
    between the chat template and the configuration, if there is one.
    """

    tokens: tuple[int, ...]
    warning: str = ""


def end_of_turn(tokenizer: Any, listed: Sequence[int], variables: Mapping[str, Any]) -> EndOfTurn:
    """Find the end-of-turn tokens. `listed` are those of the base's configuration; `variables` are
    passed to the chat template. Raises NoEndOfTurn.
    """
    written = _written_end(tokenizer, listed, variables)
    if written is None:
        if not listed:
            raise NoEndOfTurn(
                "neither its chat template nor its configuration has a token that ends an answer"
            )
        if len(listed) == 1:
            return EndOfTurn(tuple(listed))
        names = ", ".join(_name(tokenizer, token) for token in listed)
        return EndOfTurn(
            tuple(listed),
            f"the chat template ends an answer without any of the tokens {names} that its "
            f"configuration lists; answers are trained to end with the first one",
        )
    tokens = tuple(dict.fromkeys((written, *listed)))
    if not listed or written == listed[0]:
        return EndOfTurn(tokens)
    return EndOfTurn(
        tokens,
        f"the chat template ends an answer with {_name(tokenizer, written)}, and its configuration "
        f"{'first lists' if written in listed else 'lists only'} "
        f"{_name(tokenizer, listed[0])}; answers are trained to end with "
        f"{_name(tokenizer, written)}",
    )


def _written_end(tokenizer: Any, listed: Sequence[int], variables: Mapping[str, Any]) -> int | None:
    """Return the first token after an answer in the template's rendering, if it is a control token
    or listed; None otherwise, or if the template refuses the conversation.
    """
    turns = [{"role": "user", "content": _QUESTION}, {"role": "assistant", "content": _ANSWER}]
    try:
        rendered = tokenizer.apply_chat_template(turns, tokenize=False, **variables)
    # A template raises what its author chose; what it refuses is reported with the conversation.
    except Exception:
        return None
    after = rendered.rpartition(_ANSWER)[2].lstrip()
    control = {
        token for token, added in tokenizer.added_tokens_decoder.items() if added.special
    } | set(listed)
    for token in tokenizer(after, add_special_tokens=False)["input_ids"]:
        if token in control:
            return int(token)
        if tokenizer.decode([token]).strip():
            return None
    return None


def _name(tokenizer: Any, token: int) -> str:
    return str(tokenizer.convert_ids_to_tokens(token))
