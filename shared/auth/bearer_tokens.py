"""Bearer tokens of the registry (roles `read` and `operate`) and of the HTTP intake (role `send`).

A token file has one token per line, after its role and, if it has one, the name of its owner; `#`
starts a comment. A role may have several tokens, so that a new one can be in use before the old one
is removed.

    # role  owner  token
    operate ada    0mT3a…
    read           f81Kq…
"""

import hmac
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Literal, NamedTuple

from shared.errors import SettingsError

Role = Literal["read", "operate", "send"]
"""`read` and `operate` (which includes `read`) at the registry, `send` at the intake."""

MIN_TOKEN_LENGTH = 16

_FORM = re.compile(r"[A-Za-z0-9._~+/-]+=*")
# No name can be a token: it is too short for one, or has an `@`.
_OWNER = re.compile(r"[A-Za-z0-9._+-]{1,15}|[A-Za-z0-9._+-]{1,64}@[A-Za-z0-9.-]{1,64}")


def new_token() -> str:
    """Return a random token of 256 bits."""
    return secrets.token_urlsafe(32)


class Grant(NamedTuple):
    """The role of a token, and the name of its owner if it has one."""

    role: Role
    owner: str | None = None


class TokenLine(NamedTuple):
    """A line of a token file."""

    grant: Grant
    token: str


@dataclass(frozen=True, slots=True)
class Tokens:
    """The accepted tokens, stored as digests so that no token is ever shown."""

    grants: Mapping[bytes, Grant] = field(default_factory=dict, repr=False)

    def grant_of(self, token: str) -> Grant | None:
        """Return the role and owner of a token, or None for an unknown one.

        Runs in constant time with respect to the accepted tokens.
        """
        digest = _digest(token)
        matching: Grant | None = None
        for accepted, grant in self.grants.items():
            if hmac.compare_digest(accepted, digest):
                matching = grant
        return matching

    def role_of(self, token: str) -> Role | None:
        """Return the role of a token, or None for an unknown one."""
        grant = self.grant_of(token)
        return grant.role if grant else None

    def __or__(self, other: "Tokens") -> "Tokens":
        """Return the union; a token that is an operator's in either is an operator's."""
        both = dict(self.grants)
        for digest, grant in other.grants.items():
            if digest not in both or both[digest].role != "operate":
                both[digest] = grant
        return Tokens(both)


def tokens_for_role(
    role: Role, values: Iterable[str], where: str, owner: str | None = None
) -> Tokens:
    """Return tokens of one role and owner.

    Raises SettingsError with `where` they come from, never with the token.
    """
    return Tokens({_digest(_checked(token, where)): Grant(role, owner) for token in values})


def parse_token_lines(
    text: str, where: str, allowed: Sequence[Role] = ("read", "operate")
) -> list[TokenLine]:
    """Parse the lines of a token file, in order.

    Raises SettingsError with the number of an invalid line.
    """
    expected = " or ".join(f"`{role} <token>`" for role in allowed)
    lines: list[TokenLine] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        role = next((role for role in allowed if role == words[0]), None)
        if role is None or len(words) not in (2, 3):
            raise SettingsError(
                f"{where}, line {number}: expected {expected}, with the owner's name before the "
                "token if it has one"
            )
        owner = words[1] if len(words) == 3 else None
        if owner is not None and not _OWNER.fullmatch(owner):
            raise SettingsError(
                f"{where}, line {number}: expected one token, after the owner's name: an e-mail "
                "address, or at most 15 characters from A-Z a-z 0-9 . _ + -"
            )
        token = _checked(words[-1], f"{where}, line {number}")
        lines.append(TokenLine(Grant(role, owner), token))
    return lines


def parse_tokens(text: str, where: str, allowed: Sequence[Role] = ("read", "operate")) -> Tokens:
    """Parse a token file. Raises SettingsError."""
    tokens = Tokens()
    for grant, token in parse_token_lines(text, where, allowed):
        tokens |= tokens_for_role(grant.role, [token], where, grant.owner)
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
