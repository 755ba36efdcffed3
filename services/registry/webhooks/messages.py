"""The messages of webhooks, by the specification Standard Webhooks: content, signature, back-off.
Pure.

    webhook-id          stable for an event, whatever the number of attempts
    webhook-timestamp   time of the attempt, in seconds since 1970
    webhook-signature   `v1,` and base64 of HMAC-SHA256(key, "<id>.<timestamp>.<body>"); one for
                        each key, separated by blanks

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import hmac
import json
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

EventType = Literal[
    "verdict.promoted",
    "verdict.rejected",
    "champion.promoted",
    "champion.rolled_back",
    "model.held",
    "model.released",
    "canary.withdrawn",
]

_TYPES: Mapping[tuple[str, str | None], EventType] = {
    ("challenge", None): "verdict.promoted",
    ("set_aside", None): "verdict.promoted",
    ("rejected", None): "verdict.rejected",
    ("withdraw", None): "verdict.rejected",
    ("withdraw", "canary"): "canary.withdrawn",
    ("promote", None): "champion.promoted",
    ("roll_back", None): "champion.rolled_back",
    ("hold", None): "model.held",
    ("release", None): "model.released",
}
"""The event of an audit action, for an actor where it differs by actor."""

FIRST_DELAY = timedelta(seconds=5)
LARGEST_DELAY = timedelta(hours=6)
MAX_ATTEMPTS = 11
"""Attempts of a delivery, over 25 hours."""

GONE = 410
"""The response by which a receiver declines all further messages."""


def event_type(action: str, actor: str) -> EventType | None:
    """Return the event that an audit entry announces, None for one without an event."""
    return _TYPES.get((action, actor)) or _TYPES.get((action, None))


def message_id(entry_hash: str) -> str:
    """Return the id of an event's message, a function of its audit entry."""
    return f"msg_{entry_hash[:32]}"


def message_body(event: EventType, entry: Mapping[str, Any]) -> bytes:
    """Return the JSON body for an audit entry in the form of the API. The evidence stays in the
    audit log, except for what identifies the run.
    """
    evidence = entry["evidence"]
    at: datetime = entry["at"]
    data = {
        "number": entry["number"],
        "model": entry["model"],
        "version": entry["to"],
        "previous": entry["from"] if event.startswith("champion.") else None,
        "run_id": evidence.get("run_id"),
        "batch_id": evidence.get("batch_id"),
        "actor": entry["actor"],
        "operator": entry["operator"],
        "reason": entry["reason"],
    }
    content = {"type": event, "timestamp": at.isoformat(), "data": data}
    return json.dumps(content, separators=(",", ":")).encode("ascii")


def signed_headers(
    identifier: str, at: datetime, body: bytes, keys: Iterable[bytes]
) -> dict[str, str]:
    """Return the headers of an attempt at `at`."""
    timestamp = str(int(at.timestamp()))
    signed = f"{identifier}.{timestamp}.".encode() + body
    digests = (hmac.digest(key, signed, "sha256") for key in keys)
    return {
        "webhook-id": identifier,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(
            f"v1,{base64.b64encode(digest).decode()}" for digest in digests
        ),
    }


def next_delay(attempts: int) -> timedelta | None:
    """Return the pause after a number of failed attempts; None if there is no further one."""
    if attempts >= MAX_ATTEMPTS:
        return None
    return min(FIRST_DELAY * int(4 ** (attempts - 1)), LARGEST_DELAY)
