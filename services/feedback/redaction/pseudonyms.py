"""Names that stand for identifiers which are themselves personal data, such as a user's e-mail
address.
"""

import hashlib
from typing import Literal

Identifier = Literal["user", "conversation", "response", "event", "source"]


def pseudonym(identifier: Identifier, value: str) -> str:
    """`<identifier>-<16 hexadecimal digits>`: the same for values that differ only in case and
    outer blanks, for ever and everywhere.

    It is no secret: whoever holds a list of addresses can compute theirs. Who asks for all that a
    user said looks for the user's id and for `pseudonym("user", id)`.
    """
    return f"{identifier}-{hashlib.sha256(value.strip().casefold().encode()).hexdigest()[:16]}"
