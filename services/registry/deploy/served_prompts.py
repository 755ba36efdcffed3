"""Checks of what a server makes of a conversation: the tokens of its prompt, and the text that an
application gets. Pure.
"""

from collections.abc import Sequence

from services.registry.deploy.verification import ServedToken

_PART_OF_A_CHARACTER = "\ufffd"


def prompt_difference(evaluated: Sequence[int], served: Sequence[int]) -> str:
    """Describe where a served prompt's tokens differ from the evaluation's; empty if they are the
    same.
    """
    if list(evaluated) == list(served):
        return ""
    pairs = enumerate(zip(evaluated, served, strict=False))
    shorter = min(len(evaluated), len(served))
    place = next((place for place, (own, other) in pairs if own != other), shorter)
    return (
        f"the server makes {len(served)} tokens of its prompt, the evaluation {len(evaluated)}; "
        f"they differ from token {place + 1} on ({_token(served, place)} instead of "
        f"{_token(evaluated, place)}): template or tokenizer of base.serving are not those of "
        "base.training"
    )


def content_difference(answer: Sequence[ServedToken], content: str) -> str:
    """Describe an answer whose text does not reach the application; empty if it does.

    Parts of characters are not compared. The end-of-turn token has no text.
    """
    generated = "".join(token.text for token in answer).strip()
    if generated and not content.strip():
        return "the application gets an empty text, since the server takes the answer for thoughts"
    if _PART_OF_A_CHARACTER in generated or generated == content.strip():
        return ""
    return f"the application gets {content[:80]!r} instead of {generated[:80]!r}"


def _token(ids: Sequence[int], place: int) -> str:
    return str(ids[place]) if place < len(ids) else "none"
