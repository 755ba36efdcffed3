"""Training window: the hours of the day in which runs of a lane may start."""

from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from typing import Annotated, Any, Self
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from shared.events import FrozenModel

DAY = timedelta(days=1)


def _no_number(value: Any) -> Any:
    """Reject integers: YAML reads 22:00 without quotes as a number of minutes."""
    if isinstance(value, int):
        raise PydanticCustomError(
            "string_type", "Input should be a valid string: write the time in quotes"
        )
    return value


WallTime = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$"), BeforeValidator(_no_number)]


class TrainingWindow(FrozenModel):
    """Open from local time `from` up to, but not including, `to` in `zone`; crosses midnight when
    `to` is the earlier of the two.

    Local wall-clock time counts when clocks change: a skipped hour does not exist, a repeated hour
    counts twice.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_by_alias=True, validate_by_name=True
    )

    opens: Annotated[WallTime, Field(alias="from", description="hours and minutes, in quotes")]
    closes: Annotated[WallTime, Field(alias="to", description="hours and minutes, in quotes")]
    zone: Annotated[
        str, Field(description="name in the time zone database, such as Europe/Berlin")
    ] = "UTC"

    @field_validator("zone")
    @classmethod
    def _zone_is_known(cls, zone: str) -> str:
        try:
            ZoneInfo(zone)
        except (KeyError, ValueError, OSError):  # OSError: a folder of the database, like "Europe"
            raise PydanticCustomError(
                "zone",
                f"expected a name of the time zone database, such as Europe/Berlin, found {zone!r}",
            ) from None
        return zone

    @model_validator(mode="after")
    def _is_open_at_some_time(self) -> Self:
        if self.opens == self.closes:
            raise PydanticCustomError(
                "never_open",
                "from and to are equal: omit the window if runs may start at any time",
            )
        return self

    def is_open(self, now: datetime) -> bool:
        """Return whether the window is open at `now`."""
        local_time = now.astimezone(ZoneInfo(self.zone)).time()
        opens, closes = time.fromisoformat(self.opens), time.fromisoformat(self.closes)
        return (
            opens <= local_time < closes
            if opens < closes
            else local_time >= opens or local_time < closes
        )

    def next_open(self, now: datetime) -> datetime:
        """Return the first moment from `now` on, in UTC, at which the window is open; `now` itself
        if it is.
        """
        now = now.astimezone(UTC)
        if self.is_open(now):
            return now
        return min(moment for moment in self._turns(now) if moment > now and self.is_open(moment))

    def _turns(self, now: datetime) -> Iterator[datetime]:
        """Yield every moment of the next days at which the window can open: at local time `from`,
        and when clocks change.
        """
        zone = ZoneInfo(self.zone)
        opens = time.fromisoformat(self.opens)
        # No zone has two changes of the clock within three days.
        for days in range(-1, 4):
            date = (now.astimezone(zone) + days * DAY).date()
            for fold in (0, 1):
                yield datetime.combine(date, opens.replace(fold=fold), zone).astimezone(UTC)
            yield _change(now + days * DAY, now + (days + 1) * DAY, zone)


def _change(before: datetime, after: datetime, zone: ZoneInfo) -> datetime:
    """Return the first whole second at which the zone has its offset at `after`, if the offset
    changes in between; else `after`.
    """
    target = after.astimezone(zone).utcoffset()
    if before.astimezone(zone).utcoffset() == target:
        return after
    first, last = int(before.timestamp()), int(after.timestamp())
    while last - first > 1:
        middle = (first + last) // 2
        if datetime.fromtimestamp(middle, zone).utcoffset() == target:
            last = middle
        else:
            first = middle
    return datetime.fromtimestamp(last, UTC)
