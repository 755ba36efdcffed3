"""Bearer tokens: secrets by which whoever talks to the registry may read, or operate as well, and
whoever talks to the intake may send.

A file of tokens has one on each line, after its role; `#` begins a comment. There may be several of
a role, so that a new one is in use before the old one goes.

    # role  token
    operate 0mT3a…
    read    f81Kq…
"""

import hmac
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Literal

from shared.errors import SettingsError

Role = Literal["read", "operate", "send"]
"""At the registry: whoever may operate may read. At the intake: whoever may send."""

MIN_TOKEN_LENGTH = 16

_FORM = re.compile(r"[A-Za-z0-9._~+/-]+=*")


def new_token() -> str:
    """One that nobody guesses: 256 bits."""
    return secrets.token_urlsafe(32)


@dataclass(frozen=True, slots=True)
class Tokens:
    """Which tokens there are, as digests, so that none is ever shown."""

    roles: Mapping[bytes, Role] = field(default_factory=dict, repr=False)

    def role_of(self, token: str) -> Role | None:
        """What a token allows; None for one that is none. The time that it takes tells nothing of
        the tokens that there are.
        """
        digest = _digest(token)
        found: Role | None = None
        for known, role in self.roles.items():
            if hmac.compare_digest(known, digest):
                found = role
        return found

    def __or__(self, other: "Tokens") -> "Tokens":
        """Those of both; what is an operator's in either is an operator's."""
        both = dict(self.roles)
        for digest, role in other.roles.items():
            if both.get(digest) != "operate":
                both[digest] = role
        return Tokens(both)


def tokens_for_role(role: Role, values: Iterable[str], where: str) -> Tokens:
    """Tokens of one role. Raises SettingsError, which names `where` they were found and never the
    token.
    """
    return Tokens({_digest(_checked(token, where)): role for token in values})


def parse_token_lines(
    text: str, where: str, allowed: Sequence[Role] = ("read", "operate")
) -> list[tuple[Role, str]]:
    """The lines of a file of tokens, in order. Raises SettingsError with the number of a line that
    is not one.
    """
    expected = " or ".join(f"`{role} <token>`" for role in allowed)
    lines: list[tuple[Role, str]] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        role = next((role for role in allowed if role == words[0]), None)
        if role is None or len(words) != 2:
            raise SettingsError(f"{where}, line {number}: expected {expected}")
        lines.append((role, _checked(words[1], f"{where}, line {number}")))
    return lines


def parse_tokens(text: str, where: str, allowed: Sequence[Role] = ("read", "operate")) -> Tokens:
    """What a file of tokens says. Raises SettingsError."""
    found = Tokens()
    for role, token in parse_token_lines(text, where, allowed):
        found |= tokens_for_role(role, [token], where)
    return found


def _checked(token: str, where: str) -> str:
    if len(token) < MIN_TOKEN_LENGTH or not _FORM.fullmatch(token):
        raise SettingsError(
            f"{where}: expected a token of at least {MIN_TOKEN_LENGTH} characters out of A-Z a-z 0-9 "
            ". _ ~ + / - (and = at its end)"
        )
    return token


def _digest(token: str) -> bytes:
    return sha256(token.encode(errors="surrogateescape")).digest()
