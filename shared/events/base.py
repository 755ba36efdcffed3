"""Base classes of events, and field types that several of them use."""

from datetime import UTC, datetime
from typing import Annotated, ClassVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, FiniteFloat

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
MAX_ID = 256
Id = Annotated[str, Field(min_length=1, max_length=MAX_ID)]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Share = Annotated[FiniteFloat, Field(ge=0, le=1)]
Reward = Annotated[FiniteFloat, Field(ge=-1, le=1)]
Count = Annotated[int, Field(ge=0)]


def _in_utc(moment: datetime) -> datetime:
    try:
        moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("is before the year 1 or after the year 9999 in UTC") from None
    return moment


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]


class FrozenModel(BaseModel):
    """Base of value objects: immutable, unknown fields are an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Event(FrozenModel):
    """Fields of every event: a deterministic id and the time of the event."""

    schema_version: ClassVar[int] = 1

    event_id: Annotated[
        Id, Field(description="unique id; an event that is sent again keeps its id and counts once")
    ]
    occurred_at: Annotated[
        Moment, Field(description="time of the event (RFC 3339, with UTC offset)")
    ]

    @classmethod
    def type_name(cls) -> str:
        """The CloudEvents `type`."""
        return f"ratchet.{cls.__name__}.v{cls.schema_version}"


class Position(FrozenModel):
    """The position of a record in a topic."""

    topic: Annotated[str, Field(description="the topic's name")]
    partition: Annotated[Count, Field(description="partition number, from 0")]
    offset: Annotated[Count, Field(description="offset in the partition")]


class Artefact(FrozenModel):
    """An object in the object store and the digest of its bytes (of its manifest, for a folder)."""

    uri: Annotated[str, Field(description="key in the object store")]
    digest: Annotated[
        Digest, Field(description="digest of the object's bytes; of its manifest, for a folder")
    ]
