"""Report of the examples that wait for a batch.

dataset ──▶ dataset.waiting ──▶ registry
"""

from typing import Annotated, Literal

from pydantic import Field

from shared.events.base import Count, Event, FrozenModel, Moment, Name

QuotaLimit = Literal["examples_per_user", "user_share", "examples_per_conversation"]


class HeldBack(FrozenModel):
    """Examples that a limit defers to a later batch."""

    limit: Annotated[QuotaLimit, Field(description="limit, a key of `curation`")]
    examples: Annotated[Count, Field(description="number of examples that it defers")]
    sources: Annotated[
        Count,
        Field(
            description="number of their users or, for the limit on conversations, conversations"
        ),
    ]

    def __str__(self) -> str:
        source = "conversation" if self.limit == "examples_per_conversation" else "user"
        plural = "" if self.sources == 1 else "s"
        return f"{self.examples} held back by {self.limit} ({self.sources} {source}{plural})"


class WaitingStatus(FrozenModel):
    """Training examples that wait for the next batch, which closes with `needed` usable ones.

    `held_back` and `new_users` cannot be in it yet. From `smaller_batch_at` on,
    `smallest_batch` usable ones are enough; null if batches never close early.
    """

    needed: Annotated[Count, Field(description="number of usable examples that close a batch")]
    usable: Annotated[Count, Field(description="number of examples that may be in it")]
    held_back: Annotated[
        tuple[HeldBack, ...], Field(description="examples that limits on influence defer")
    ] = ()
    new_users: Annotated[
        Count, Field(description="number of examples of users who are too new, by new_user_hours")
    ] = 0
    smallest_batch: Annotated[
        Count, Field(description="number of usable examples that is enough from then on")
    ]
    smaller_batch_at: Annotated[
        Moment | None, Field(description="time from which a smaller batch closes; null: never")
    ] = None

    @property
    def deferred(self) -> int:
        """Number of waiting examples that cannot be in the next batch yet."""
        return sum(each.examples for each in self.held_back) + self.new_users

    @property
    def parts(self) -> str:
        """The waiting examples in words, without what the batch needs."""
        parts = [f"{self.usable} usable", *map(str, self.held_back)]
        if self.new_users:
            parts.append(f"{self.new_users} held back by new_user_hours")
        return ", ".join(parts)

    @property
    def closes(self) -> str:
        """The conditions under which the batch closes, in words."""
        missing = self.needed - self.usable
        closes = f"closes with {missing} more" if missing > 0 else "closing"
        if self.smaller_batch_at is not None and missing > 0:
            at = f"{self.smaller_batch_at:%Y-%m-%d %H:%M} UTC"
            closes += f", or with {self.smallest_batch} from {at} on"
        return closes

    def __str__(self) -> str:
        return f"{self.needed} needed: {self.parts}; {self.closes}"


class WaitingReported(Event):
    """The examples of a shard that wait for its next batch have changed. The newest report of a
    shard, by `occurred_at`, replaces the earlier ones.
    """

    model: Annotated[Name, Field(description="name of the model")]
    shard: Annotated[Count, Field(description="shard of the model")]
    status: Annotated[WaitingStatus, Field(description="what waits, and what it waits for")]
