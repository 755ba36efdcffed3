"""Training windows follow local time, also when clocks change."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.config.training_window import TrainingWindow

NIGHT = TrainingWindow(opens="02:00", closes="06:00", zone="Europe/Berlin")
LATE = TrainingWindow(opens="22:30", closes="01:15", zone="UTC")


def at(text: str) -> datetime:
    """Return a time in UTC in the year 2026."""
    return datetime.fromisoformat(f"2026-{text}+00:00")


def open_spans_of(
    window: TrainingWindow, first: datetime, last: datetime
) -> list[tuple[datetime, datetime]]:
    """Return the periods in which a window is open between two moments, from `next_open` and a
    check of every minute.
    """
    open_spans = []
    while (opens := window.next_open(first)) < last:
        first = opens
        while window.is_open(first):
            first += timedelta(minutes=1)
        open_spans.append((opens, first))
    return open_spans


def test_a_window_within_one_day() -> None:
    """Berlin is two hours ahead of UTC in summer, so 02:00 to 06:00 is 00:00 to 04:00 UTC."""
    assert not NIGHT.is_open(at("07-01T23:59:59"))
    assert NIGHT.is_open(at("07-02T00:00:00"))
    assert NIGHT.is_open(at("07-02T03:59:59"))
    assert not NIGHT.is_open(at("07-02T04:00:00"))
    assert NIGHT.next_open(at("07-02T04:00:00")) == at("07-03T00:00:00")
    assert NIGHT.next_open(at("07-02T01:00:00")) == at("07-02T01:00:00")


def test_a_window_over_midnight() -> None:
    assert open_spans_of(LATE, at("05-01T12:00:00"), at("05-02T12:00:00")) == [
        (at("05-01T22:30:00"), at("05-02T01:15:00"))
    ]


def test_the_skipped_hour_in_spring_does_not_exist() -> None:
    """On 29 March 2026 at 01:00 UTC, clocks in Berlin go from 02:00 (UTC+1) to 03:00 (UTC+2).

    The window opens at the change, three hours before 06:00 (04:00 UTC). A window within the
    skipped hour does not open that night; the next 02:15 is on the 30th, at 00:15 UTC.
    """
    assert open_spans_of(NIGHT, at("03-28T12:00:00"), at("03-29T12:00:00")) == [
        (at("03-29T01:00:00"), at("03-29T04:00:00"))
    ]
    half = TrainingWindow(opens="02:30", closes="06:00", zone="Europe/Berlin")
    assert half.next_open(at("03-28T12:00:00")) == at("03-29T01:00:00"), "03:00 is past 02:30"
    skipped = TrainingWindow(opens="02:15", closes="02:45", zone="Europe/Berlin")
    assert skipped.next_open(at("03-28T12:00:00")) == at("03-30T00:15:00")


def test_the_repeated_hour_in_autumn_counts_twice() -> None:
    """On 25 October 2026 at 01:00 UTC, clocks in Berlin go from 03:00 (UTC+2) to 02:00 (UTC+1).

    The first 02:00 is at 00:00 UTC, and 06:00 at 05:00 UTC: five hours. A window that ends at 02:30
    closes at 00:30 UTC. It opens again at the second 02:00, at 01:00 UTC, for half an hour.
    """
    assert open_spans_of(NIGHT, at("10-24T12:00:00"), at("10-25T12:00:00")) == [
        (at("10-25T00:00:00"), at("10-25T05:00:00"))
    ]
    early = TrainingWindow(opens="01:00", closes="02:30", zone="Europe/Berlin")
    assert open_spans_of(early, at("10-24T12:00:00"), at("10-25T12:00:00")) == [
        (at("10-24T23:00:00"), at("10-25T00:30:00")),
        (at("10-25T01:00:00"), at("10-25T01:30:00")),
    ]


def test_a_time_of_any_zone_is_accepted() -> None:
    tokyo = datetime(2026, 7, 2, 9, 0, tzinfo=ZoneInfo("Asia/Tokyo"))
    assert NIGHT.is_open(tokyo)
    assert NIGHT.next_open(tokyo).tzinfo is UTC


MINUTES = st.integers(0, 24 * 60 - 1)


@given(
    st.tuples(MINUTES, MINUTES).filter(lambda pair: pair[0] != pair[1]),
    st.sampled_from(
        ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]
    ),
    st.sampled_from(["03-07", "03-28", "04-04", "06-10", "10-03", "10-24", "10-31"]),
    st.integers(0, 2 * 24 * 60),
)
def test_nothing_before_the_next_opening_is_open(
    hours: tuple[int, int], zone: str, day: str, minutes: int
) -> None:
    """Compared with a check of every minute, around clock changes of an hour or half an hour."""
    opens, closes = (f"{minute // 60:02}:{minute % 60:02}" for minute in hours)
    window = TrainingWindow(opens=opens, closes=closes, zone=zone)
    now = at(f"{day}T00:00:00") + timedelta(minutes=minutes)
    minute = now
    while not window.is_open(minute):
        minute += timedelta(minutes=1)
    assert window.next_open(now) == minute


@pytest.mark.parametrize("text", ["24:00", "2:00", "02:60", "noon"])
def test_an_invalid_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        TrainingWindow(opens=text, closes="06:00")
