"""The header format of dead letters: it survives any record and any error."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.clock import ManualClock
from shared.errors import ContractViolation, Undecodable
from shared.events import Position
from shared.messaging.bus import MemoryBus, Record, send_dead_letter
from shared.messaging.codec import Header
from shared.messaging.dead_letters import (
    MAX_FIELD,
    MAX_REASON,
    DeadLetterInfo,
    format_position,
    original_headers,
    parse_position,
    previous_attempts,
    read_replay,
    replay_headers,
)
from shared.version import ratchet_version

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
SOURCE = Position(topic="feedback.received", partition=2, offset=17)

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    [
        "ratchet_dlq_reason",
        "ratchet_dlq_attempt",
        "ratchet_replay_of",
        "ratchet_replay_attempt",
        "ratchet_replay_at",
    ]
)
headers = st.lists(st.tuples(names, st.none() | st.binary(max_size=8)), max_size=6)


def make_info(
    error: ContractViolation | None = None, record_headers: list[Header] | None = None
) -> DeadLetterInfo:
    return DeadLetterInfo.for_error(
        SOURCE,
        record_headers or [],
        error or ContractViolation("is too long", "output"),
        "feedback",
        NOW,
    )


@given(headers, st.text(), st.text())
def test_info_survives_a_round_trip_through_headers(
    record_headers: list[Header], reason: str, field: str
) -> None:
    info = DeadLetterInfo.for_error(
        SOURCE, record_headers, ContractViolation(reason, field), "feedback", NOW
    )
    all_headers = [*original_headers(record_headers), *info.headers()]
    assert DeadLetterInfo.from_headers(all_headers) == info
    assert original_headers(all_headers) == original_headers(record_headers)
    again = DeadLetterInfo.for_error(SOURCE, all_headers, Undecodable("no"), "dataset", NOW)
    assert len([*original_headers(all_headers), *again.headers()]) == len(all_headers), (
        "a second dead-lettering adds nothing"
    )


def test_info_has_service_position_reason_and_time() -> None:
    assert make_info().model_dump() == {
        "topic": "feedback.received",
        "partition": 2,
        "offset": 17,
        "reason": "is too long",
        "field": "output",
        "error": "ContractViolation",
        "service": "feedback",
        "service_version": ratchet_version(),
        "at": NOW,
        "attempt": 1,
    }


def test_unprintable_text_is_escaped_and_long_text_is_cut() -> None:
    info = make_info(ContractViolation("\ud800" + "x" * 5000, "y" * 5000))
    assert info.reason.startswith("\\ud800x")
    assert (len(info.reason), len(info.field)) == (MAX_REASON, MAX_FIELD)


@given(headers, st.integers(1, 100_000))
def test_a_replay_increases_the_attempt(record_headers: list[Header], attempt: int) -> None:
    letter = make_info().model_copy(update={"attempt": attempt})
    replayed = [*original_headers(record_headers), *replay_headers(letter, NOW)]
    assert read_replay(replayed) == (SOURCE, NOW)
    assert previous_attempts(replayed) == attempt
    assert make_info(record_headers=replayed).attempt == attempt + 1
    assert original_headers(replayed) == original_headers(record_headers)


@pytest.mark.parametrize("attempt", [b"", b"-1", b"x", b"1.5", b"9" * 400, "٣".encode(), None])
def test_an_invalid_attempt_counts_as_zero(attempt: bytes | None) -> None:
    assert make_info(record_headers=[("ratchet_replay_attempt", attempt)]).attempt == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"ratchet_dlq_offset": b"x"},
        {"ratchet_dlq_offset": b"-1"},
        {"ratchet_dlq_at": b"then"},
        {"ratchet_dlq_topic": None},
    ],
)
def test_incomplete_headers_are_not_an_info(changed: dict[str, bytes | None]) -> None:
    headers: list[Header] = [
        (name, changed.get(name, value)) for name, value in make_info().headers()
    ]
    assert DeadLetterInfo.from_headers(headers) is None
    assert DeadLetterInfo.from_headers([]) is None


def test_older_letters_without_version_and_attempt_decode() -> None:
    old = [
        (name, value)
        for name, value in make_info().headers()
        if not name.endswith(("_version", "_attempt"))
    ]
    assert DeadLetterInfo.from_headers(old) == make_info().model_copy(
        update={"service_version": ""}
    )


@given(
    st.from_regex(r"[a-zA-Z0-9._-]{1,20}", fullmatch=True),
    st.integers(0, 10**9),
    st.integers(0, 2**63 - 1),
)
def test_positions_are_formatted_and_parsed(topic: str, partition: int, offset: int) -> None:
    at = Position(topic=topic, partition=partition, offset=offset)
    assert parse_position(format_position(at)) == at


@pytest.mark.parametrize(
    "text", ["", "topic", "topic/1", "a/b/1", "/1/1", "topic/1/-1", "topic/1/1/1", "topic/1/1 "]
)
def test_other_text_is_not_a_position(text: str) -> None:
    with pytest.raises(ValueError, match="expected topic/partition/offset"):
        parse_position(text)


async def test_a_replayed_record_loses_replay_headers_in_its_letter() -> None:
    bus = MemoryBus()
    headers: list[Header] = [
        ("trace", None),
        ("trace", b"\xff"),
        *replay_headers(make_info(), NOW),
        ("trace", b""),
    ]
    record = Record("feedback.received", 0, 30, None, None, tuple(headers))
    await send_dead_letter(bus, record, Undecodable("no value"), "feedback", ManualClock(NOW))
    (letter,) = bus.topics["feedback.received.dlq"]
    info = DeadLetterInfo.from_headers(letter.headers)
    assert info is not None
    assert (info.attempt, info.offset) == (2, 30)
    assert (letter.key, letter.value) == (None, None)
    assert original_headers(letter.headers) == (("trace", None), ("trace", b"\xff"), ("trace", b""))
    assert read_replay(letter.headers) is None
