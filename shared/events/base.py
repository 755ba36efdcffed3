"""What every event carries, and the values that several of them have."""

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
    """A part of an event: frozen, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Event(FrozenModel):
    """What every event carries: an id that is the same whenever the same thing is said again, and
    when it happened.
    """

    schema_version: ClassVar[int] = 1

    event_id: Annotated[
        Id, Field(description="the same whenever the same thing is said again: it counts once")
    ]
    occurred_at: Annotated[
        Moment, Field(description="when it happened (RFC 3339, with its offset from UTC)")
    ]

    @classmethod
    def type_name(cls) -> str:
        """The CloudEvents `type`."""
        return f"ratchet.{cls.__name__}.v{cls.schema_version}"


class Position(FrozenModel):
    """A place in a log."""

    topic: Annotated[str, Field(description="the topic's name")]
    partition: Annotated[Count, Field(description="counted from 0")]
    offset: Annotated[Count, Field(description="the place in the partition")]


class Artefact(FrozenModel):
    """An object in the object store and the digest of its bytes (of its manifest, for a folder)."""

    uri: Annotated[str, Field(description="its key in the object store")]
    digest: Annotated[
        Digest, Field(description="of the object's bytes; of its manifest, for a folder")
    ]
