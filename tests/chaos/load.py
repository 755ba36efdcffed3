"""Seeded load of many applications: mostly valid feedback, some of it duplicated, reordered or
invalid.
"""

import json
import random
from collections.abc import Sequence

from tests.support.scored_feedback import words
from tests.support.service_process import Headers

MODEL = "chaos"
MODEL_FILE = f"""\
model: {MODEL}
base: {{training: base, serving: base.gguf}}
shards: 4
curation: {{batch_size: 5}}
"""

Sent = tuple[bytes | None, bytes | None, Headers]

_KINDS = (
    ("thumbs_up",) * 6
    + ("accepted",) * 3
    + ("correction",) * 3
    + ("thumbs_down", "regenerated", "retracted")
)
_INVALID: Sequence[bytes] = (b"", b"{", b"\xff\xfe", b'{"model": "unknown"}', b"[]")


class Load:
    """An endless stream of records for `feedback.received`; the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._seed = seed
        self._next = 0

    def take(self, count: int) -> list[Sent]:
        """Return the next records. One in twelve is a duplicate, one in thirty is invalid, and
        neighbours are swapped.
        """
        records: list[Sent] = []
        while len(records) < count:
            if self._random.random() < 1 / 30:
                records.append((b"odd", self._random.choice(_INVALID), []))
            elif self._next and self._random.random() < 1 / 12:
                records.append(
                    self._event(self._random.randrange(max(0, self._next - 50), self._next))
                )
            else:
                records.append(self._event(self._next))
                self._next += 1
        for index in range(count - 1):
            if self._random.random() < 1 / 5:
                records[index], records[index + 1] = records[index + 1], records[index]
        return records

    def _event(self, number: int) -> Sent:
        """Return the event with a number; deterministic."""
        drawn = random.Random(f"{self._seed}/{number}")
        name = f"{self._seed}-{number}"
        kind = drawn.choice(_KINDS)
        conversation = f"c{drawn.randrange(40)}"
        event = {
            "event_id": name,
            "occurred_at": "2026-01-01T00:00:00Z",
            "model": MODEL,
            "input": words(f"prompt {name}"),
            "output": words(f"answer {name}"),
            "feedback_type": kind,
            "user_id": f"user{drawn.randrange(200)}",
            "conversation_id": conversation,
        }
        if kind == "correction":
            event["corrected_output"] = words(f"right {name}")
        return conversation.encode(), json.dumps(event).encode(), []
