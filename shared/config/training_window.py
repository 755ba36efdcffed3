"""The hours in which a lane's runs may begin."""

from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from typing import Annotated, Any, Self
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from shared.events import FrozenModel

DAY = timedelta(days=1)


def _no_number(said: Any) -> Any:
    """YAML reads 22:00 without quotes as a number of minutes."""
    if isinstance(said, int):
        raise PydanticCustomError(
            "string_type", "Input should be a valid string: write the time in quotes"
        )
    return said


WallTime = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$"), BeforeValidator(_no_number)]


class TrainingWindow(FrozenModel):
    """Open while a clock on the wall of `zone` shows a time from `from` up to, and not including,
    `to`; over midnight where `to` is the earlier. It is the wall that counts when clocks change: an
    hour that is skipped is not there, one that comes twice counts twice.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_by_alias=True, validate_by_name=True
    )

    opens: Annotated[WallTime, Field(alias="from", description="hours and minutes, in quotes")]
    closes: Annotated[WallTime, Field(alias="to", description="hours and minutes, in quotes")]
    zone: Annotated[
        str, Field(description="a name of the time zone database, as Europe/Berlin")
    ] = "UTC"

    @field_validator("zone")
    @classmethod
    def _zone_is_known(cls, zone: str) -> str:
        try:
            ZoneInfo(zone)
        except (
            KeyError,
            ValueError,
            OSError,
        ):  # a folder of the database, as "Europe", is an OSError
            raise PydanticCustomError(
                "zone", f"{zone!r} is no time zone of the database (as Europe/Berlin)"
            ) from None
        return zone

    @model_validator(mode="after")
    def _is_open_at_some_time(self) -> Self:
        if self.opens == self.closes:
            raise PydanticCustomError(
                "never_open",
                "from and to are the same: leave the window out where runs may begin at any time",
            )
        return self

    def is_open(self, now: datetime) -> bool:
        shown = now.astimezone(ZoneInfo(self.zone)).time()
        opens, closes = time.fromisoformat(self.opens), time.fromisoformat(self.closes)
        return opens <= shown < closes if opens < closes else shown >= opens or shown < closes

    def next_open(self, now: datetime) -> datetime:
        """The first moment from `now` on, in UTC, at which the window is open; `now` itself while
        it is.
        """
        now = now.astimezone(UTC)
        if self.is_open(now):
            return now
        return min(moment for moment in self._turns(now) if moment > now and self.is_open(moment))

    def _turns(self, now: datetime) -> Iterator[datetime]:
        """Every moment of the next days at which the window can open: when the wall shows `from`,
        and when clocks change.
        """
        zone = ZoneInfo(self.zone)
        opens = time.fromisoformat(self.opens)
        for days in range(
            -1, 4
        ):  # two changes of the clock within three days are not known of any zone
            date = (now.astimezone(zone) + days * DAY).date()
            for fold in (0, 1):
                yield datetime.combine(date, opens.replace(fold=fold), zone).astimezone(UTC)
            yield _change(now + days * DAY, now + (days + 1) * DAY, zone)


def _change(before: datetime, after: datetime, zone: ZoneInfo) -> datetime:
    """The first whole second at which the clocks of a zone show their offset at `after`, where a
    change lies between; else `after`.
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
