"""Cached entries: small in memory, without loss."""

import pytest

from services.dataset.ledger.cached_entry import CachedEntry
from services.dataset.ledger.duplicate_index import DuplicateIndex
from services.dataset.ledger.entry_index import EntryIndex
from services.dataset.ledger.golden_set import GoldenSet
from services.dataset.ledger.recovery import read_state
from shared.events import Artefact, Position, RewardPart
from shared.identity import digest_of
from shared.messaging.topics import FEEDBACK_SCORED
from shared.storage.dataset_entries import ClosedBatch, DatasetEntry, Membership
from tests.support.batches import member
from tests.support.scored_feedback import START, model_file

MANIFEST = Artefact(uri="m.json", digest=digest_of(b"m"))
WHOLE = member("e", 7).model_copy(
    update={
        "influence": "user:Zoë \"the\" 'first' \\ \u2028",
        "conversation": "talk",
        "since": START,
        "eligible_at": START,
        "answer_id": "a",
        "parts": (RewardPart(name="validation", value=0.5, weight=1.0),),
        "word": "thumbs_up",
        "text": "t" * 684,
        "prompt": "p" * 684,
        "traceparent": "00-1-2-01",
    }
)
JOINED = WHOLE.with_membership(Membership(number=3, place=4, size=5, closed=9, manifest=MANIFEST))


EACH = [
    WHOLE,
    JOINED,
    WHOLE.revoked_by("superseded", 9),
    WHOLE.revoked_by("withdrawn", 9).erased(),
    JOINED.erased(),
    member("w", 8).model_copy(
        update={"decision": "withdrawal", "reason": "withdrawn", "withdraws": "u", "example": None}
    ),
]


@pytest.mark.parametrize("entry", EACH, ids=lambda entry: f"{entry.decision}-{entry.reason}")
def test_cached_fields_equal_those_of_the_entry(entry: DatasetEntry) -> None:
    cached = CachedEntry.of(entry)
    assert cached.entry == entry
    assert cached == CachedEntry.of(cached.entry, cached.encoded)
    assert (cached.is_waiting, cached.offset) == (entry.is_waiting, entry.source.offset)
    assert (cached.batch_number, cached.place) == (
        (entry.batch.number, entry.batch.place) if entry.batch else (None, None)
    )
    same = ("feedback_id", "logged_at", "decision", "reason", "answer_id", "revoked", "withdraws")
    assert [getattr(cached, name) for name in same] == [getattr(entry, name) for name in same]
    assert (cached.contributor, cached.user_verdict) == (entry.influence, entry.word)


def test_members_keep_what_later_events_need() -> None:
    expected = JOINED.model_dump(exclude_none=True)
    lost = {"example", "traceparent", "conversation", "eligible_at"}
    assert expected.keys() == (WHOLE.model_dump(exclude_none=True).keys() | {"batch"}) - lost
    assert JOINED.parts == ()


def test_only_texts_are_dropped_and_only_once() -> None:
    entries = EntryIndex()
    entries.add(CachedEntry.of(JOINED))
    index = DuplicateIndex(model_file(), GoldenSet(), entries)
    index.drop_texts(["e", "expired"])
    (smaller,) = index.take_shrunk()
    assert smaller.entry == JOINED.model_copy(update={"text": None, "prompt": None})
    assert entries.get("e") is smaller
    index.drop_texts(["e"])
    assert index.take_shrunk() == []


def test_waiting_entries_keep_their_texts() -> None:
    entries = EntryIndex()
    entries.add(CachedEntry.of(WHOLE))
    index = DuplicateIndex(model_file(), GoldenSet(), entries)
    index.drop_texts(["e"])
    assert index.take_shrunk() == []


def test_owned_values_stay_encoded_and_other_keys_are_returned() -> None:
    batch = ClosedBatch(
        model="support",
        shard=0,
        partition=1,
        number=3,
        size=5,
        closed=9,
        occurred_at=START,
        manifest=MANIFEST,
    )
    other_partition = member("x", 1).model_copy(
        update={"source": Position(topic=FEEDBACK_SCORED, partition=2, offset=1), "model": "other"}
    )
    owned = JOINED.model_copy(
        update={"source": Position(topic=FEEDBACK_SCORED, partition=1, offset=7)}
    )
    table = {value.key.encode(): value.encode() for value in (owned, batch, other_partition)}
    state, not_owned = read_state(table.items(), {1}.__contains__)
    assert not_owned == [other_partition.key.encode()]
    shard = state.pop(("support", 0))
    assert (state, shard.batches) == ({}, [batch])
    assert [cached.entry for cached in shard.entries] == [owned]
    assert shard.entries[0].encoded is table[owned.key.encode()]
