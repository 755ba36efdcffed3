"""Withdrawal of a user's feedback from entries, limits, indexes and snapshots."""

from datetime import timedelta
from typing import Any

import pytest

from services.dataset.ledger.results import ShardUpdate
from services.dataset.snapshot.content import snapshot_content
from services.dataset.snapshot.withdrawal import (
    MAX_IDS_PER_EVENT,
    MarkedExamples,
    mark_examples,
    withdrawal_events,
)
from services.dataset.snapshot.withdrawal_marks import add_to_mark, mark_key, read_mark
from services.dataset.snapshot.writer import write_snapshot
from shared.errors import Undecodable
from shared.events import Artefact, Position, RewardPart, WithdrawnBatch
from shared.identity import user_digest
from shared.messaging.topics import FEEDBACK_SCORED
from shared.storage.dataset_entries import DatasetEntry
from shared.storage.object_store import MemoryStore
from shared.storage.snapshots import read_manifest
from tests.support.scored_feedback import (
    START,
    SimulatedShard,
    model_file,
    scored,
    withdrawal,
    words,
)

ANN, BOB = ({"user_id": user} for user in ("ann", "bob"))


def world(**policy: Any) -> SimulatedShard:
    return SimulatedShard(model_file(**({"batch_size": 2, "held_out_share": 0.0} | policy)))


def fed(shard: SimulatedShard, *events: tuple[str, str, dict[str, Any]]) -> SimulatedShard:
    """Append events (id, kind, fields) to the entries."""
    for event_id, kind, fields in events:
        shard.decide(
            scored(event_id, kind, -1.0 if kind == "thumbs_down" else 1.0, **fields),
            len(shard.entries),
        )
    return shard


def waiting_of(update: ShardUpdate) -> int:
    """Return the number of the user's entries that waited before a withdrawal."""
    assert update.withdrawal is not None
    return update.withdrawal.waiting


def entry_of(shard: SimulatedShard, feedback_id: str) -> DatasetEntry:
    return shard.entries[f"support#0|{feedback_id}"]


def withdraw_user(shard: SimulatedShard, user: str = "ann", restart: bool = False) -> None:
    shard.withdraw(withdrawal(f"w{len(shard.entries)}", user), len(shard.entries))
    if restart:
        shard.restart()


def test_waiting_entries_of_the_user_are_erased() -> None:
    shard = fed(
        world(batch_size=10),
        ("a0", "correction", ANN | {"conversation_id": "c"}),
        ("b1", "thumbs_up", BOB),
        ("a2", "thumbs_down", ANN),
        ("a3", "retracted", ANN),
    )
    withdrawn = shard.withdraw(withdrawal("w", "ann"), 4)
    assert (withdrawn.event_status, waiting_of(withdrawn)) == ("new", 2)
    for name, reason, revoked in (
        ("a0", "withdrawn", 4),
        ("a2", "withdrawn", 4),
        ("a3", "retracted", None),
    ):
        entry = entry_of(shard, name)
        assert (entry.decision, entry.reason, entry.revoked) == ("dropped", reason, revoked)
        assert (entry.influence, entry.conversation, entry.word, entry.parts) == (
            None,
            None,
            None,
            (),
        )
        assert (entry.example, entry.text, entry.prompt) == (None, None, None)
    assert entry_of(shard, "b1").is_waiting
    assert shard.pending == 1
    own = entry_of(shard, "w")
    assert (own.decision, own.withdraws, own.is_waiting) == (
        "withdrawal",
        user_digest("ann"),
        False,
    )
    assert not any("ann" in entry.model_dump_json() for entry in shard.entries.values())


def test_withdrawn_are_counted_in_the_next_batch() -> None:
    shard = fed(world(), ("a0", "thumbs_up", ANN))
    withdraw_user(shard, restart=True)
    fed(shard, ("b0", "thumbs_up", BOB), ("b1", "thumbs_up", BOB))
    assert [plan.dropped for plan in shard.plans] == [{"withdrawn": 1}]


def test_repeated_request_does_nothing_a_new_one_withdraws_again() -> None:
    shard = fed(world(batch_size=10), ("a0", "thumbs_up", ANN))
    shard.withdraw(withdrawal("w", "ann"), 1)
    fed(shard, ("a1", "thumbs_up", ANN))
    assert shard.withdraw(withdrawal("w", "ann"), 1).event_status == "replay"
    assert shard.withdraw(withdrawal("w", "ann"), 3).event_status == "duplicate"
    assert entry_of(shard, "a1").is_waiting
    assert waiting_of(shard.withdraw(withdrawal("again", "ann"), 4)) == 1


def test_interrupted_request_finishes_with_the_same_count() -> None:
    shard = fed(world(batch_size=10), ("a0", "thumbs_up", ANN), ("a1", "thumbs_up", ANN))
    before = dict(shard.entries)
    whole = shard.withdraw(withdrawal("w", "ann"), 2)
    after = dict(shard.entries)
    for written in range(len(whole.writes)):
        shard.entries = before | {
            write.key: DatasetEntry.model_validate_json(write.value)
            for write in whole.writes[:written]
        }
        shard.restart()
        assert waiting_of(shard.withdraw(withdrawal("w", "ann"), 2)) == 2
        assert shard.entries == after


@pytest.mark.parametrize("restart", [False, True])
def test_limits_treat_the_user_as_new_after_withdrawal(restart: bool) -> None:
    limits: dict[str, Any] = {
        "examples_per_user": 1,
        "user_share": 0.5,
        "share_window": 1,
        "new_user_hours": 1.0,
        "batch_size": 2,
    }
    shard = world(**limits)
    later = START + timedelta(hours=2)
    for offset, user in enumerate((ANN, BOB)):
        shard.decide(scored(f"e{offset}", **user), offset, START)
    shard.decide(scored("e2", user_id="cleo"), 2, later)
    assert shard.training_members(0) == ["e0", "e1"]
    shard.withdraw(withdrawal("w", "ann"), 3, later)
    if restart:
        shard.restart()
    entry = shard.decide(scored("a4", **ANN), 4, later).entry
    assert entry is not None
    assert entry.since == later, "the user counts as new"
    shard.decide(scored("b5", **BOB), 5, later + timedelta(hours=3))
    assert shard.training_members(1) == ["e2", "a4"], (
        "bob has reached the limit of the window; ann's withdrawn examples do not count"
    )


@pytest.mark.parametrize("restart", [False, True])
def test_withdrawn_examples_are_not_compared(restart: bool) -> None:
    same: dict[str, Any] = {"input": words("p"), "output": words("a")}
    shard = fed(
        world(),
        ("a0", "thumbs_up", ANN | same),
        ("b1", "thumbs_up", BOB),
        ("b2", "thumbs_up", BOB | same),
    )
    assert entry_of(shard, "a0").batch is not None
    assert entry_of(shard, "b2").reason == "near_duplicate"
    withdraw_user(shard, restart=restart)
    fed(shard, ("c3", "thumbs_up", {"user_id": "cleo"} | same))
    assert entry_of(shard, "c3").is_waiting
    assert entry_of(shard, "a0").batch is not None, "the batch still contains the example"


@pytest.mark.parametrize("restart", [False, True])
def test_erased_entries_expire(restart: bool) -> None:
    shard = fed(world(deduplicate_days=7), ("a0", "thumbs_up", ANN), ("b1", "thumbs_up", BOB))
    later = START + timedelta(days=8)
    shard.decide(scored("b2", **BOB), 2, later)
    assert "support#0|a0" in shard.entries, "needed until similar examples are marked"
    shard.withdraw(withdrawal("w", "ann"), 3, later)
    if restart:
        shard.restart()
    assert shard.decide(scored("b4", **BOB), 4, later).expired == ("support#0|a0",)


def test_validation_is_withdrawn_with_the_users_rating() -> None:
    thumb, check = (
        (RewardPart(name=name, value=1.0, weight=1.0),) for name in ("action", "validation")
    )
    about: dict[str, Any] = {
        "input": words("p"),
        "output": words("a"),
        "response_id": "r",
        "parts": check,
    }
    shard = fed(
        world(batch_size=10),
        ("a0", "thumbs_up", ANN | about | {"parts": thumb}),
        ("check", "validation", about),
    )
    entry = entry_of(shard, "check")
    assert entry.is_waiting
    assert entry.example is not None
    assert (entry.influence, entry.example.user_id, entry.word) == ("user:ann", "ann", "thumbs_up")
    withdraw_user(shard)
    assert entry_of(shard, "check").reason == "withdrawn"
    fed(shard, ("later", "validation", about))
    entry = entry_of(shard, "later")
    assert (entry.is_waiting, entry.word, entry.influence, entry.parts) == (True, None, None, check)


# Snapshots


def snapshots(store: MemoryStore, *batches: dict[str, dict[str, Any]]) -> list[Artefact]:
    """The manifests of batches, oldest first, each of events (id → fields)."""
    shard = world(batch_size=2, examples_per_user=10, user_share=1.0)
    manifests: list[Artefact] = []
    offset, plan = 0, None
    for events in batches:
        for event_id, fields in events.items():
            kind = fields.get("kind", "thumbs_up")
            event = scored(
                event_id, kind, -1.0 if kind == "thumbs_down" else 1.0, user_id=fields["user"]
            )
            source = Position(topic=FEEDBACK_SCORED, partition=0, offset=offset)
            plan = shard.ledger.decide(event, source, START).batch
            offset += 1
        assert plan is not None
        manifests.append(write_snapshot(store, snapshot_content(plan, shard.file, 0)))
        shard.ledger.close_batch(plan, manifests[-1])
    return manifests


def history(store: MemoryStore) -> list[Artefact]:
    return snapshots(
        store,
        {
            "d0": {"user": "ann", "kind": "thumbs_down"},
            "a1": {"user": "ann", "kind": "correction"},
            "b2": {"user": "bob"},
        },
        {"b3": {"user": "bob"}, "b4": {"user": "bob"}},
        {"a5": {"user": "ann"}, "b6": {"user": "bob"}},
    )


def test_examples_of_every_kind_are_marked_once() -> None:
    store = MemoryStore()
    first, second, third = history(store)
    before = dict(store.objects)
    steps: list[None] = []
    marked = mark_examples(store, third, "ann", lambda: steps.append(None))
    assert [(batch.number, batch.feedback_ids) for batch in marked.batches] == [
        (2, ("a5",)),
        (0, ("a1", "d0")),
    ]
    assert [batch.batch_id for batch in marked.batches] == [
        read_manifest(store, artefact).batch_id for artefact in (third, first)
    ]
    assert (marked.unread, len(steps)) == ((), 3)
    assert {key: store.objects[key] for key in before} == before
    assert store.objects.keys() - before.keys() == {mark_key(first), mark_key(third)}
    mark = read_mark(store, first)
    assert mark is not None
    assert mark.feedback_ids == ("a1", "d0")
    assert read_mark(store, second) is None
    objects = dict(store.objects)
    assert mark_examples(store, third, "ann", lambda: None) == marked
    assert store.objects == objects
    assert (
        mark_examples(store, third, "nobody", lambda: None)
        == mark_examples(store, None, "ann", lambda: None)
        == MarkedExamples((), ())
    )


def test_marks_accumulate_and_altered_ones_are_rewritten() -> None:
    store = MemoryStore()
    manifest = history(store)[0]
    mark_examples(store, manifest, "ann", lambda: None)
    mark_examples(store, manifest, "bob", lambda: None)
    mark = read_mark(store, manifest)
    assert mark is not None
    assert mark.feedback_ids == ("a1", "b2", "d0")
    store.objects[mark_key(manifest)] = b"{"
    with pytest.raises(Undecodable):
        read_mark(store, manifest)
    add_to_mark(store, manifest, mark.batch_id, ["a1"])
    assert read_mark(store, manifest) == mark.model_copy(update={"feedback_ids": ("a1",)})


def test_unreadable_objects_are_reported_and_the_rest_searched() -> None:
    store = MemoryStore()
    first, second, third = history(store)
    training = next(
        file.artefact.uri for file in read_manifest(store, first).files if file.kind == "training"
    )
    store.objects[training] += b" "
    marked = mark_examples(store, third, "ann", lambda: None)
    assert marked.unread == (training,)
    assert [batch.feedback_ids for batch in marked.batches] == [("a5",), ("d0",)]
    store.objects[second.uri] += b" "
    marked = mark_examples(store, third, "ann", lambda: None)
    assert (marked.unread, len(marked.batches)) == ((second.uri,), 1)
    del store.objects[second.uri]
    assert mark_examples(store, third, "ann", lambda: None).unread == (), (
        "the search ends at a deleted manifest"
    )


def test_large_withdrawals_are_split_deterministically() -> None:
    sizes = (3, MAX_IDS_PER_EVENT - 3, 1, 2 * MAX_IDS_PER_EVENT + 7, 4)
    batches = tuple(
        WithdrawnBatch(
            batch_id=f"b{number}",
            number=number,
            feedback_ids=tuple(f"{number}-{at}" for at in range(size)),
        )
        for number, size in enumerate(sizes)
    )
    events = withdrawal_events(withdrawal("w", "ann"), 3, MarkedExamples(batches, ("gone",)))
    assert events == withdrawal_events(
        withdrawal("w", "ann"), 3, MarkedExamples(batches, ("gone",))
    )
    assert [event.part for event in events] == list(range(events[0].parts))
    assert len({event.event_id for event in events}) == len(events)
    assert all(
        sum(len(batch.feedback_ids) for batch in event.batches) <= MAX_IDS_PER_EVENT
        for event in events
    )
    names = [name for event in events for batch in event.batches for name in batch.feedback_ids]
    assert names == [name for batch in batches for name in batch.feedback_ids]


def test_empty_withdrawal_is_announced_without_user_id() -> None:
    (event,) = withdrawal_events(withdrawal("w", "ann", reason="asked"), 0, MarkedExamples((), ()))
    assert (event.waiting, event.batches, event.part, event.parts, event.reason) == (
        0,
        (),
        0,
        1,
        "asked",
    )
    assert event.user == user_digest("ann")
    assert '"ann"' not in event.model_dump_json()
