"""Entries as they are held in memory: small, and as good as whole."""

import pytest

from services.dataset.ledger.cached_entry import CachedEntry
from services.dataset.ledger.entry_index import EntryIndex
from services.dataset.ledger.recovery import read_state
from shared.events import Artefact, Position, RewardPart
from shared.identity import digest_of
from shared.messaging.topics import FEEDBACK_SCORED
from shared.storage.dataset_entries import ClosedBatch, DatasetEntry, Membership
from tests.dataset.batch import member
from tests.dataset.events import START

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
def test_a_card_says_what_its_entry_says(entry: DatasetEntry) -> None:
    card = CachedEntry.of(entry)
    assert card.entry == entry
    assert card == CachedEntry.of(card.entry, card.encoded)
    assert (card.is_waiting, card.offset) == (entry.is_waiting, entry.source.offset)
    assert (card.batch_number, card.place) == (
        (entry.batch.number, entry.batch.place) if entry.batch else (None, None)
    )
    same = (
        "feedback_id",
        "logged_at",
        "decision",
        "reason",
        "influence",
        "answer_id",
        "word",
        "revoked",
        "withdraws",
    )
    assert [getattr(card, name) for name in same] == [getattr(entry, name) for name in same]


def test_a_member_of_a_batch_keeps_what_later_feedback_and_a_withdrawal_need() -> None:
    kept = JOINED.model_dump(exclude_none=True)
    lost = {"example", "traceparent", "conversation", "eligible_at"}
    assert kept.keys() == (WHOLE.model_dump(exclude_none=True).keys() | {"batch"}) - lost
    assert JOINED.parts == ()


def test_only_signatures_are_left_out_and_only_once() -> None:
    known = EntryIndex()
    known.add(CachedEntry.of(JOINED))
    lighter = known.lighten("e")
    assert lighter is not None
    assert lighter.entry == JOINED.model_copy(update={"text": None, "prompt": None})
    assert known["e"] is lighter
    assert known.lighten("e") is None


def test_what_is_read_is_held_as_it_was_read_and_what_belongs_to_others_is_named() -> None:
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
    theirs = member("x", 1).model_copy(
        update={"source": Position(topic=FEEDBACK_SCORED, partition=2, offset=1), "model": "other"}
    )
    ours = JOINED.model_copy(
        update={"source": Position(topic=FEEDBACK_SCORED, partition=1, offset=7)}
    )
    table = {said.key.encode(): said.encode() for said in (ours, batch, theirs)}
    state, others = read_state(table.items(), {1}.__contains__)
    assert others == [theirs.key.encode()]
    found = state.pop(("support", 0))
    assert (state, found.batches, [card.entry for card in found.entries]) == ({}, [batch], [ours])
    assert found.entries[0].encoded is table[ours.key.encode()]
