"""What became of each scored event: the only durable state of the dataset service, one entry for each event in a compacted topic.

Written once when the event is decided and once more when it enters a batch, then without its content. Entries are small,
independent of each other, and the same whoever writes them.
"""

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from shared.events import Artefact, Count, Id, Name, Position, Value
from shared.snapshots import Example

Decision = Literal["training", "negative", "held_out", "dropped"]
Reason = Literal[
    "correction",
    "approved",
    "low_reward",
    "held_out",
    "retracted",
    "low_quality",
    "empty",
    "near_duplicate",
    "contaminated",
]


class Membership(Value):
    """The place of an event in a batch: `place` of `size` members, counted from 0; `closed` is the offset at which the batch closed."""

    number: Count
    place: Count
    size: Annotated[int, Field(ge=1)]
    closed: Count
    manifest: Artefact


class Entry(Value):
    """What was decided about one event, why, and where the event stands in `feedback.scored`.

    `occurred_at` is the event's own time, `logged_at` that of its record. `influence` names whose example it is, for the cap per
    user. `text` and `prompt` are MinHash signatures (base64), kept while similar examples have to be found.
    """

    model: Name
    shard: Count
    feedback_id: Id
    decision: Decision
    reason: Reason
    source: Position
    occurred_at: AwareDatetime
    logged_at: AwareDatetime
    influence: str | None = None
    example: Example | None = None
    text: str | None = None
    prompt: str | None = None
    batch: Membership | None = None

    @property
    def key(self) -> str:
        """The key in the compacted topic."""
        return entry_key(self.model, self.shard, self.feedback_id)

    @property
    def waits(self) -> bool:
        """Whether it waits for a batch."""
        return self.batch is None and self.decision != "dropped"

    def joined(self, batch: Membership) -> "Entry":
        """The same event as a member of a batch, without its content."""
        return self.model_copy(update={"batch": batch, "example": None})

    def encode(self) -> bytes:
        return self.model_dump_json(exclude_none=True).encode()


def entry_key(model: str, shard: int, feedback_id: str) -> str:
    """`model#shard|feedback_id`."""
    return f"{model}#{shard}|{feedback_id}"
