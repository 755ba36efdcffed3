"""A user's feedback is taken out of what is known and waits, and found in the snapshots; others'
stays as it is.
"""

from datetime import timedelta
from typing import Any

import pytest

from services.dataset.ledger.results import ShardUpdate
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


def fed(it: SimulatedShard, *events: tuple[str, str, dict[str, Any]]) -> SimulatedShard:
    """With events (id, kind, fields) behind what is there."""
    for event_id, kind, fields in events:
        it.decide(
            scored(event_id, kind, -1.0 if kind == "thumbs_down" else 1.0, **fields),
            len(it.entries),
        )
    return it


def waiting_of(update: ShardUpdate) -> int:
    """Number of the user's entries that waited before a withdrawal."""
    assert update.withdrawal is not None
    return update.withdrawal.waiting


def entry_of(it: SimulatedShard, feedback_id: str) -> DatasetEntry:
    return it.entries[f"support#0|{feedback_id}"]


def forget(it: SimulatedShard, user: str = "ann", restart: bool = False) -> None:
    it.withdraw(withdrawal(f"w{len(it.entries)}", user), len(it.entries))
    if restart:
        it.restart()


def test_what_waits_of_a_user_is_dropped_without_a_trace_of_what_was_said_and_others_is_not() -> (
    None
):
    it = fed(
        world(batch_size=10),
        ("a0", "correction", ANN | {"conversation_id": "c"}),
        ("b1", "thumbs_up", BOB),
        ("a2", "thumbs_down", ANN),
        ("a3", "retracted", ANN),
    )
    withdrawn = it.withdraw(withdrawal("w", "ann"), 4)
    assert (withdrawn.event_status, waiting_of(withdrawn)) == ("new", 2)
    for name, reason, revoked in (
        ("a0", "withdrawn", 4),
        ("a2", "withdrawn", 4),
        ("a3", "retracted", None),
    ):
        entry = entry_of(it, name)
        assert (entry.decision, entry.reason, entry.revoked) == ("dropped", reason, revoked)
        assert (entry.influence, entry.conversation, entry.word, entry.parts) == (
            None,
            None,
            None,
            (),
        )
        assert (entry.example, entry.text, entry.prompt) == (None, None, None)
    assert entry_of(it, "b1").is_waiting
    assert it.pending == 1
    own = entry_of(it, "w")
    assert (own.decision, own.withdraws, own.is_waiting) == (
        "withdrawal",
        user_digest("ann"),
        False,
    )
    assert not any("ann" in entry.model_dump_json() for entry in it.entries.values())


def test_what_was_withdrawn_is_counted_for_the_batch_in_whose_time_that_was() -> None:
    it = fed(world(), ("a0", "thumbs_up", ANN))
    forget(it, restart=True)
    fed(it, ("b0", "thumbs_up", BOB), ("b1", "thumbs_up", BOB))
    assert [closing.dropped for closing in it.plans] == [{"withdrawn": 1}]


def test_the_same_request_again_does_nothing_and_another_takes_what_came_since() -> None:
    it = fed(world(batch_size=10), ("a0", "thumbs_up", ANN))
    it.withdraw(withdrawal("w", "ann"), 1)
    fed(it, ("a1", "thumbs_up", ANN))
    assert it.withdraw(withdrawal("w", "ann"), 1).event_status == "replay"
    assert it.withdraw(withdrawal("w", "ann"), 3).event_status == "duplicate"
    assert entry_of(it, "a1").is_waiting
    assert waiting_of(it.withdraw(withdrawal("again", "ann"), 4)) == 1


def test_a_request_that_a_crash_cut_off_is_finished_with_the_same_count() -> None:
    it = fed(world(batch_size=10), ("a0", "thumbs_up", ANN), ("a1", "thumbs_up", ANN))
    before = dict(it.entries)
    whole = it.withdraw(withdrawal("w", "ann"), 2)
    after = dict(it.entries)
    for written in range(len(whole.writes)):
        it.entries = before | {
            write.key: DatasetEntry.model_validate_json(write.value)
            for write in whole.writes[:written]
        }
        it.restart()
        assert waiting_of(it.withdraw(withdrawal("w", "ann"), 2)) == 2
        assert it.entries == after


@pytest.mark.parametrize("restart", [False, True])
def test_from_then_on_the_user_is_a_stranger_to_every_limit(restart: bool) -> None:
    limits: dict[str, Any] = {
        "examples_per_user": 1,
        "user_share": 0.5,
        "share_window": 1,
        "new_user_hours": 1.0,
        "batch_size": 2,
    }
    it = world(**limits)
    later = START + timedelta(hours=2)
    for offset, user in enumerate((ANN, BOB)):
        it.decide(scored(f"e{offset}", **user), offset, START)
    it.decide(scored("e2", user_id="cleo"), 2, later)
    assert it.training_members(0) == ["e0", "e1"]
    it.withdraw(withdrawal("w", "ann"), 3, later)
    if restart:
        it.restart()
    entry = it.decide(scored("a4", **ANN), 4, later).entry
    assert entry is not None
    assert entry.since == later, "as one who was never seen"
    it.decide(scored("b5", **BOB), 5, later + timedelta(hours=3))
    assert it.training_members(1) == ["e2", "a4"], (
        "bob has had his share of the window, ann's counts no more"
    )


@pytest.mark.parametrize("restart", [False, True])
def test_nothing_is_compared_any_more_with_what_the_user_said(restart: bool) -> None:
    same: dict[str, Any] = {"input": words("p"), "output": words("a")}
    it = fed(
        world(),
        ("a0", "thumbs_up", ANN | same),
        ("b1", "thumbs_up", BOB),
        ("b2", "thumbs_up", BOB | same),
    )
    assert entry_of(it, "a0").batch is not None
    assert entry_of(it, "b2").reason == "near_duplicate"
    forget(it, restart=restart)
    fed(it, ("c3", "thumbs_up", {"user_id": "cleo"} | same))
    assert entry_of(it, "c3").is_waiting
    assert entry_of(it, "a0").batch is not None, "what was trained on is still said to be"


@pytest.mark.parametrize("restart", [False, True])
def test_what_says_nothing_any_more_is_deleted_once_it_is_old(restart: bool) -> None:
    it = fed(world(deduplicate_days=7), ("a0", "thumbs_up", ANN), ("b1", "thumbs_up", BOB))
    later = START + timedelta(days=8)
    it.decide(scored("b2", **BOB), 2, later)
    assert "support#0|a0" in it.entries, "needed while similar examples are to be found"
    it.withdraw(withdrawal("w", "ann"), 3, later)
    if restart:
        it.restart()
    assert it.decide(scored("b4", **BOB), 4, later).expired == ("support#0|a0",)


def test_a_check_of_an_answer_that_a_user_spoke_of_goes_with_what_they_said() -> None:
    thumb, check = (
        (RewardPart(name=name, value=1.0, weight=1.0),) for name in ("action", "validation")
    )
    about: dict[str, Any] = {
        "input": words("p"),
        "output": words("a"),
        "response_id": "r",
        "parts": check,
    }
    it = fed(
        world(batch_size=10),
        ("a0", "thumbs_up", ANN | about | {"parts": thumb}),
        ("check", "validation", about),
    )
    entry = entry_of(it, "check")
    assert entry.is_waiting
    assert entry.example is not None
    assert (entry.influence, entry.example.user_id, entry.word) == ("user:ann", "ann", "thumbs_up")
    forget(it)
    assert entry_of(it, "check").reason == "withdrawn"
    fed(it, ("later", "validation", about))
    entry = entry_of(it, "later")
    assert (entry.is_waiting, entry.word, entry.influence, entry.parts) == (True, None, None, check)


# Snapshots


def snapshots(store: MemoryStore, *batches: dict[str, dict[str, Any]]) -> list[Artefact]:
    """The manifests of batches, oldest first, each of events (id → fields)."""
    it = world(batch_size=2, examples_per_user=10, user_share=1.0)
    manifests: list[Artefact] = []
    offset, plan = 0, None
    for events in batches:
        for event_id, fields in events.items():
            kind = fields.get("kind", "thumbs_up")
            event = scored(
                event_id, kind, -1.0 if kind == "thumbs_down" else 1.0, user_id=fields["user"]
            )
            source = Position(topic=FEEDBACK_SCORED, partition=0, offset=offset)
            plan = it.ledger.decide(event, source, START).batch
            offset += 1
        assert plan is not None
        manifests.append(write_snapshot(store, plan, it.file, 0))
        it.ledger.close_batch(plan, manifests[-1])
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


def test_a_user_s_examples_of_every_kind_are_found_and_marked_once_beside_manifests_that_stay_as_they_are() -> (
    None
):
    store = MemoryStore()
    first, second, third = history(store)
    before = dict(store.objects)
    steps: list[None] = []
    found = mark_examples(store, third, "ann", lambda: steps.append(None))
    assert [(batch.number, batch.feedback_ids) for batch in found.batches] == [
        (2, ("a5",)),
        (0, ("a1", "d0")),
    ]
    assert [batch.batch_id for batch in found.batches] == [
        read_manifest(store, artefact).batch_id for artefact in (third, first)
    ]
    assert (found.unread, len(steps)) == ((), 3)
    assert {key: store.objects[key] for key in before} == before
    assert store.objects.keys() - before.keys() == {mark_key(first), mark_key(third)}
    mark = read_mark(store, first)
    assert mark is not None
    assert mark.feedback_ids == ("a1", "d0")
    assert read_mark(store, second) is None
    marked = dict(store.objects)
    assert mark_examples(store, third, "ann", lambda: None) == found
    assert store.objects == marked
    assert (
        mark_examples(store, third, "nobody", lambda: None)
        == mark_examples(store, None, "ann", lambda: None)
        == MarkedExamples((), ())
    )


def test_a_mark_adds_up_over_users_and_one_that_was_altered_is_made_anew() -> None:
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


def test_what_cannot_be_read_is_named_and_the_rest_is_searched() -> None:
    store = MemoryStore()
    first, second, third = history(store)
    training = next(
        file.artefact.uri for file in read_manifest(store, first).files if file.kind == "training"
    )
    store.objects[training] += b" "
    found = mark_examples(store, third, "ann", lambda: None)
    assert found.unread == (training,)
    assert [batch.feedback_ids for batch in found.batches] == [("a5",), ("d0",)]
    store.objects[second.uri] += b" "
    found = mark_examples(store, third, "ann", lambda: None)
    assert (found.unread, len(found.batches)) == ((second.uri,), 1)
    del store.objects[second.uri]
    assert mark_examples(store, third, "ann", lambda: None).unread == (), (
        "a history that was deleted ends there"
    )


def test_a_long_answer_is_said_in_parts_that_together_say_it_all_and_each_time_the_same() -> None:
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
    said = [name for event in events for batch in event.batches for name in batch.feedback_ids]
    assert said == [name for batch in batches for name in batch.feedback_ids]


def test_an_answer_names_no_user_and_is_given_when_there_is_nothing_to_withdraw() -> None:
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
