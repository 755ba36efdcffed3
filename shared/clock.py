"""Clock port: pure code takes `now` as an argument, adapters take a `Clock`."""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Source of the time of day (timezone-aware, UTC) and of a monotonic count of seconds for
    durations.
    """

    def now(self) -> datetime: ...

    def monotonic(self) -> float: ...


class SystemClock:
    """The system clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


class ManualClock:
    """Clock for tests that moves only when `advance` is called."""

    def __init__(self, start: datetime) -> None:
        self._now = start
        self._elapsed = 0.0

    def advance(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)
        self._elapsed += seconds

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._elapsed
