"""Search, selection and replay of dead letters, on an in-memory bus whose consumer rejects some
records.
"""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.dead_letters.replay import plan_replay, replay_letter
from ratchet.dead_letters.search import (
    DeadLetter,
    DeadLetterCollector,
    DeadLetterFilter,
    DeadLetterNotFound,
    letter_topics,
    parse_letter_id,
    parse_since,
)
from shared.clock import ManualClock
from shared.errors import BusUnavailable, ContractViolation, UnknownModel, Unprocessable
from shared.events import Position
from shared.messaging.bus import MemoryBus, Record, send_dead_letter
from shared.messaging.codec import Headers
from shared.messaging.dead_letters import original_headers

TOPIC, DLQ = "feedback.received", "feedback.received.dlq"
START = datetime(2026, 5, 4, tzinfo=UTC)


class ReplayWorld(MemoryBus):
    """A topic, its dead letters, and a consumer that rejects records with the value `bad`."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock(START)
        self.handled: list[bytes | None] = []
        self.fails_on = ""

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        partition: int | None = None,
    ) -> None:
        if topic == self.fails_on:
            raise BusUnavailable("unavailable")
        await super().send(topic, key, value, headers)

    async def read_at(self, position: Position) -> Record | None:
        log = self.topics.get(position.topic, [])
        return log[position.offset] if position.offset < len(log) else None

    async def consume(self) -> None:
        """Consume `feedback.received` from the committed offset."""
        async for record in self.records(TOPIC):
            self.clock.advance(1)
            if record.value == b"bad":
                await send_dead_letter(
                    self, record, ContractViolation("is bad", "output"), "feedback", self.clock
                )
            else:
                self.handled.append(record.value)
            await self.commit(record)

    def letters(self, letter_filter: DeadLetterFilter | None = None) -> list[DeadLetter]:
        return read(self.topics.get(DLQ, []), letter_filter)

    async def replay(self, limit: int = 100, attempts: int = 3, again: bool = False) -> int:
        plan = plan_replay(self.letters(), limit, attempts, again).letters
        return sum([await replay_letter(letter, self, self, self.clock) for letter in plan])


def read(records: list[Record], letter_filter: DeadLetterFilter | None = None) -> list[DeadLetter]:
    collector = DeadLetterCollector(letter_filter or DeadLetterFilter())
    for record in records:
        collector.add(record)
    return collector.letters()


async def make_world(*values: bytes) -> ReplayWorld:
    world = ReplayWorld()
    for number, value in enumerate(values):
        await world.send(
            TOPIC,
            f"key{number}".encode(),
            value,
            [("trace", None), ("number", str(number).encode())],
        )
    await world.consume()
    return world


async def test_attempts_increase_until_the_limit() -> None:
    world = await make_world(b"bad", b"good")
    for attempt in (1, 2):
        assert [letter.info.attempt for letter in world.letters() if letter.replayed is None] == [
            attempt
        ]
        assert await world.replay() == 1
        assert await world.replay() == 0, "a second replay skips it"
        await world.consume()
    (left,) = (letter for letter in world.letters() if letter.replayed is None)
    assert left.info.attempt == 3
    assert await world.replay() == 0
    assert await world.replay(attempts=4) == 1
    assert world.handled == [b"good"]


async def test_a_replayed_record_equals_the_original() -> None:
    world = await make_world(b"bad")
    await world.replay()
    original, replayed = world.topics[TOPIC]
    assert (replayed.key, replayed.value, original_headers(replayed.headers)) == (
        original.key,
        original.value,
        original.headers,
    )
    assert dict(replayed.headers)["ratchet_replay_of"] == f"{TOPIC}/0/0".encode()


async def test_again_includes_replayed_and_exhausted_letters() -> None:
    world = await make_world(b"bad", b"bad")
    assert (await world.replay(), await world.replay(again=True)) == (2, 2)
    plan = plan_replay(world.letters(), limit=1, attempts=1, again=False)
    assert (plan.letters, plan.already_replayed, plan.over_attempts, plan.over_limit) == (
        (),
        2,
        0,
        0,
    )


async def test_oldest_letters_are_replayed_first_up_to_the_limit() -> None:
    world = await make_world(*[b"bad"] * 5)
    plan = plan_replay(world.letters(), limit=2, attempts=3, again=False)
    assert [letter.info.offset for letter in plan.letters] == [0, 1]
    assert plan.over_limit == 3
    assert await world.replay(limit=2) == 2
    assert [letter.info.offset for letter in world.letters() if letter.replayed is None] == [
        2,
        3,
        4,
    ]


async def test_a_crash_before_the_mark_repeats_the_replay() -> None:
    world = await make_world(b"bad")
    world.fails_on = DLQ
    with pytest.raises(BusUnavailable):
        await world.replay()
    world.fails_on = ""
    assert await world.replay() == 1
    assert await world.replay() == 0
    assert [dict(record.headers)["ratchet_replay_of"] for record in world.topics[TOPIC][1:]] == [
        f"{TOPIC}/0/0".encode()
    ] * 2


async def test_a_letter_written_twice_counts_once() -> None:
    world = await make_world(b"bad", b"bad")
    first = world.topics[DLQ][0]
    await world.send(DLQ, first.key, first.value, first.headers)
    assert [letter.id for letter in world.letters()] == [f"{DLQ}/0/0", f"{DLQ}/0/1"]
    assert await world.replay() == 2
    assert [
        letter.id for letter in world.letters(DeadLetterFilter(id=parse_letter_id(f"{DLQ}/0/2")))
    ] == [f"{DLQ}/0/2"]
    assert {
        letter.replayed is not None
        for letter in world.letters(DeadLetterFilter(id=parse_letter_id(f"{DLQ}/0/2")))
    } == {True}


async def test_an_expired_letter_is_not_replayed() -> None:
    world = await make_world(b"bad")
    (letter,) = world.letters()
    world.topics[DLQ].clear()
    assert not await replay_letter(letter, world, world, world.clock)
    assert len(world.topics[TOPIC]) == 1


@given(st.data())
async def test_partition_order_does_not_matter(data: st.DataObject) -> None:
    world = await make_world(b"bad", b"good", b"bad", b"bad")
    await world.replay(limit=2)
    await world.consume()
    assert read(data.draw(st.permutations(world.topics[DLQ]))) == world.letters()


async def test_filters() -> None:
    world = await make_world(b"bad", b"bad")
    value = b'{"model": "other"}'
    await send_dead_letter(
        world,
        Record("training.batches", 3, 9, b"k", value),
        UnknownModel("other"),
        "trainer",
        world.clock,
    )
    records = [*world.topics[DLQ], *world.topics["training.batches.dlq"]]

    def offsets(letter_filter: DeadLetterFilter) -> list[int]:
        return [letter.info.offset for letter in read(records, letter_filter)]

    assert offsets(DeadLetterFilter()) == [0, 1, 9]
    assert offsets(DeadLetterFilter(reason="IS BAD")) == [0, 1]
    assert (
        offsets(DeadLetterFilter(field="model"))
        == offsets(DeadLetterFilter(model="other"))
        == offsets(DeadLetterFilter(reason="no model file"))
        == [9]
    )
    assert offsets(DeadLetterFilter(field="out")) == []
    assert offsets(DeadLetterFilter(since=START + timedelta(seconds=2))) == [1, 9]
    assert offsets(DeadLetterFilter(id=Position(topic=DLQ, partition=0, offset=1))) == [1]
    assert offsets(
        DeadLetterFilter(id=Position(topic="training.batches", partition=3, offset=9))
    ) == [9]
    assert offsets(DeadLetterFilter(id=Position(topic=DLQ, partition=0, offset=7))) == []


async def test_a_field_filter_matches_path_prefixes() -> None:
    world = await make_world(b"bad")
    (letter,) = world.letters()
    record = world.topics[DLQ][0]
    inside = letter.info.model_copy(update={"field": "input.0.role"})
    assert [
        DeadLetterFilter(field=field).matches(record, inside)
        for field in ("input", "input.0", "input.0.role", "in", "")
    ] == [
        True,
        True,
        True,
        False,
        False,
    ]


def test_a_topic_may_be_given_by_its_source_topic() -> None:
    existing = {"b.dlq", "a", "b", "a.dlq"}
    assert letter_topics(existing, None) == ["a.dlq", "b.dlq"]
    assert letter_topics(existing, "a") == letter_topics(existing, "a.dlq") == ["a.dlq"]
    with pytest.raises(DeadLetterNotFound, match=r"no topic c\.dlq here; there are a\.dlq, b\.dlq"):
        letter_topics(existing, "c")
    with pytest.raises(DeadLetterNotFound, match="ratchet topics apply"):
        letter_topics({"a"}, None)


def test_since_accepts_times_and_ages() -> None:
    assert parse_since("12h", START) == START - timedelta(hours=12)
    assert parse_since("2026-05-04T00:00:00Z", START) == parse_since("2026-05-04", START) == START
    for text in ("yesterday", "999999d", "", "-1h"):
        with pytest.raises(Unprocessable, match="since"):
            parse_since(text, START)
    with pytest.raises(Unprocessable, match="ratchet dlq list"):
        parse_letter_id("17")
