"""Bearer tokens of the registry (roles `read` and `operate`) and of the HTTP intake (role `send`).

A token file has one token per line, after its role; `#` starts a comment. A role may have several
tokens, so that a new one can be in use before the old one is removed.

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
"""`read` and `operate` (which includes `read`) at the registry, `send` at the intake."""

MIN_TOKEN_LENGTH = 16

_FORM = re.compile(r"[A-Za-z0-9._~+/-]+=*")


def new_token() -> str:
    """Return a random token of 256 bits."""
    return secrets.token_urlsafe(32)


@dataclass(frozen=True, slots=True)
class Tokens:
    """The accepted tokens, stored as digests so that no token is ever shown."""

    roles: Mapping[bytes, Role] = field(default_factory=dict, repr=False)

    def role_of(self, token: str) -> Role | None:
        """Return the role of a token, or None for an unknown one.

        Runs in constant time with respect to the accepted tokens.
        """
        digest = _digest(token)
        matching: Role | None = None
        for accepted, role in self.roles.items():
            if hmac.compare_digest(accepted, digest):
                matching = role
        return matching

    def __or__(self, other: "Tokens") -> "Tokens":
        """Return the union; a token that is an operator's in either is an operator's."""
        both = dict(self.roles)
        for digest, role in other.roles.items():
            if both.get(digest) != "operate":
                both[digest] = role
        return Tokens(both)


def tokens_for_role(role: Role, values: Iterable[str], where: str) -> Tokens:
    """Return tokens of one role.

    Raises SettingsError with `where` they come from, never with the token.
    """
    return Tokens({_digest(_checked(token, where)): role for token in values})


def parse_token_lines(
    text: str, where: str, allowed: Sequence[Role] = ("read", "operate")
) -> list[tuple[Role, str]]:
    """Parse the lines of a token file, in order.

    Raises SettingsError with the number of an invalid line.
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
    """Parse a token file. Raises SettingsError."""
    tokens = Tokens()
    for role, token in parse_token_lines(text, where, allowed):
        tokens |= tokens_for_role(role, [token], where)
    return tokens


def _checked(token: str, where: str) -> str:
    if len(token) < MIN_TOKEN_LENGTH or not _FORM.fullmatch(token):
        raise SettingsError(
            f"{where}: expected a token of at least {MIN_TOKEN_LENGTH} characters from A-Z a-z 0-9 "
            ". _ ~ + / - (and = at its end)"
        )
    return token


def _digest(token: str) -> bytes:
    return sha256(token.encode(errors="surrogateescape")).digest()
