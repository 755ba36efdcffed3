"""Deterministic ids and digests: functions of content, so repeated work gets the same name."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from shared.events import Message


def identity(*parts: str | int) -> str:
    """Hash `parts`, in order, to 32 hexadecimal digits.

    Parts are length-prefixed, so different lists never collide by concatenation.
    """
    digest = hashlib.sha256()
    for part in parts:
        data = str(part).encode()
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()[:32]


def batch_identity(model: str, shard: int, number: int) -> str:
    """Return the id of batch `number` (from 0) of a model's shard.

    It depends on the number alone, so a batch that is closed again keeps its id.
    """
    return identity(model, shard, number)


def run_identity(batch_id: str) -> str:
    """Return the id of a batch's run: the same for every trainer and every attempt."""
    return identity("run", batch_id)


def prompt_identity(messages: Iterable[Message]) -> str:
    """Hash a prompt; prompts that differ only in whitespace and case get the same hash."""
    return identity(
        *(
            part
            for message in messages
            for part in (message.role, " ".join(message.content.lower().split()))
        )
    )


def user_digest(user_id: str) -> str:
    """Return a pseudonym of a user, for comparisons that do not need the user's id.

    It is not a secret: it can be computed from the id.
    """
    return identity("user", user_id)


def digest_of(data: bytes) -> str:
    """Return `sha256:<hex>` of `data`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest_of_chunks(chunks: Iterable[bytes]) -> str:
    """Return `sha256:<hex>` of bytes that arrive in chunks."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return "sha256:" + digest.hexdigest()


def digest_of_file(path: Path) -> str:
    """Return `sha256:<hex>` of a file, read in chunks."""
    with path.open("rb") as file:
        return digest_of_chunks(iter(lambda: file.read(1 << 20), b""))


def hash_fraction(*parts: str | int) -> float:
    """Map `parts` to a number in [0, 1), uniformly distributed over different parts.

    Used for splits that do not depend on order.
    """
    return int(identity(*parts)[:13], 16) / 16**13
