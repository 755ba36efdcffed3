"""The hash chain of the audit log: each entry names the hash of the entry before it, so that a
changed, inserted or removed entry is found. Pure; the registry writes the chain, clients verify it.

    hash = SHA-256 of json.dumps(fields, sort_keys=True, separators=(",", ":")), in hexadecimal

`fields` are the entry's `FIELDS`; `at` is in UTC, with microseconds. A chain cannot show that its
newest entries were removed: compare it with a hash noted elsewhere.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from shared.errors import RatchetError

FIRST_PREVIOUS_HASH = "0" * 64
"""The previous hash of the first entry."""

FIELDS = (
    "number",
    "at",
    "model",
    "actor",
    "operator",
    "action",
    "from",
    "to",
    "reason",
    "evidence",
    "previous_hash",
)
"""The fields of an entry that its hash covers, under their names in the API."""


class BrokenChain(RatchetError):
    """An entry does not follow the one before it, or is not what was written."""


def entry_hash(entry: Mapping[str, Any]) -> str:
    """Return the hash of an entry; `at` is a datetime or a text in ISO 8601. Raises KeyError,
    TypeError or ValueError for what is not an entry.
    """
    fields = {name: entry[name] for name in FIELDS}
    at = fields["at"]
    at = at if isinstance(at, datetime) else datetime.fromisoformat(at)
    fields["at"] = at.astimezone(UTC).isoformat(timespec="microseconds")
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return sha256(text.encode("ascii")).hexdigest()


def as_stored(evidence: Mapping[str, Any]) -> dict[str, Any]:
    """Return evidence as every database and the API give it back: keys are texts, tuples are lists,
    and numbers that JSON does not have are null.
    """
    stored: dict[str, Any] = json.loads(json.dumps(evidence), parse_constant=lambda _: None)
    return stored


@dataclass(slots=True)
class ChainVerifier:
    """Verifies a chain, entry by entry in order of their numbers, in constant memory."""

    number: int = 0
    head: str = FIRST_PREVIOUS_HASH

    def add(self, entry: Mapping[str, Any]) -> None:
        """Verify the next entry. Raises BrokenChain, which names the entry."""
        expected = self.number + 1
        number = entry.get("number")
        if number != expected:
            raise BrokenChain(f"entry {expected} is missing: entry {number} comes in its place")
        if entry.get("previous_hash") != self.head:
            raise BrokenChain(
                f"entry {number} does not follow entry {self.number}: its previous hash is "
                f"{entry.get('previous_hash')}, expected {self.head}"
            )
        try:
            computed = entry_hash(entry)
        except (KeyError, TypeError, ValueError) as error:
            raise BrokenChain(f"entry {number} cannot be read: {error!r}") from error
        if entry.get("hash") != computed:
            raise BrokenChain(
                f"entry {number} was changed: its hash is {entry.get('hash')}, its content has "
                f"{computed}"
            )
        self.number, self.head = expected, computed
