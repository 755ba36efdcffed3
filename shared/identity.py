"""Identities are functions of content: the same thing done twice has the same name."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from shared.events import Message


def identity(*parts: str | int) -> str:
    """32 hexadecimal digits that stand for `parts`, in order. Parts are length-prefixed, so no two
    lists run together.
    """
    digest = hashlib.sha256()
    for part in parts:
        data = str(part).encode()
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()[:32]


def batch_identity(model: str, shard: int, number: int) -> str:
    """The id of batch `number` (from 0) of a model's shard: its place, so that a batch that is
    closed again has the id that it had.
    """
    return identity(model, shard, number)


def prompt_identity(messages: Iterable[Message]) -> str:
    """The same for prompts that differ only in spacing and case."""
    return identity(
        *(
            part
            for message in messages
            for part in (message.role, " ".join(message.content.lower().split()))
        )
    )


def user_digest(user_id: str) -> str:
    """What stands for a user where it matters that it is the same one, and not who. It is no
    secret: whoever knows an id can compute it.
    """
    return identity("user", user_id)


def digest_of(data: bytes) -> str:
    """`sha256:<hex>` of some bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest_of_chunks(chunks: Iterable[bytes]) -> str:
    """`sha256:<hex>` of bytes that arrive in pieces."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return "sha256:" + digest.hexdigest()


def digest_of_file(path: Path) -> str:
    """`sha256:<hex>` of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return digest_of_chunks(iter(lambda: file.read(1 << 20), b""))


def hash_fraction(*parts: str | int) -> float:
    """A number in [0, 1) fixed by `parts` and spread evenly over different ones; for splits that
    never depend on order.
    """
    return int(identity(*parts)[:13], 16) / 16**13
