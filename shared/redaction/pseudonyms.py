"""Pseudonyms for identifiers that are personal data themselves, such as a user's e-mail address."""

import hashlib
from typing import Literal

Identifier = Literal["user", "conversation", "response", "event", "source"]


def pseudonym(identifier: Identifier, value: str) -> str:
    """Return `<identifier>-<16 hexadecimal digits>`, equal for values that differ only in case and
    outer blanks. It never changes, because stored feedback refers to it.

    It is no secret: anyone with a list of addresses can compute their pseudonyms. To find all
    feedback of a user, look for the user's id and for `pseudonym("user", id)`.
    """
    return f"{identifier}-{hashlib.sha256(value.strip().casefold().encode()).hexdigest()[:16]}"
