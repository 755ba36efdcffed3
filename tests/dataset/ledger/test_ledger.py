from collections import Counter
from datetime import datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.dataset.ledger.ledger import Ledger
from services.dataset.ledger.recovery import repair_entries
from shared.config.model_file import ModelFile
from shared.events import (
    Artefact,
    BatchCounts,
    FeedbackScored,
    Position,
    RewardPart,
    WithdrawalRequested,
)
from shared.identity import digest_of
from shared.messaging.topics import FEEDBACK_SCORED
from shared.storage.dataset_entries import DatasetEntry
from shared.storage.snapshots import BatchManifest
from tests.support.scored_feedback import (
    START,
    SimulatedShard,
    model_file,
    scored,
    withdrawal,
    words,
)

KINDS = [
    "correction",
    "thumbs_up",
    "thumbs_up",
    "accepted",
    "validation",
    "thumbs_down",
    "retracted",
    "regenerated",
    "withdrawal",
]
Drawn = tuple[int, int, str, str | None, str | None, float]
EVENTS: st.SearchStrategy[list[Drawn]] = st.lists(
    st.tuples(
        st.integers(0, 60),  # the event's id: ids repeat, as applications repeat them
        st.integers(0, 25),  # the answer that it is about
        st.sampled_from(KINDS),
        st.sampled_from([None, "ann", "bob", "cleo", "dan"]),
        st.sampled_from([None, "talk", "chat"]),
        st.sampled_from([0.0, 0.01, 1.0]),  # hours since the event before
    ),
    max_size=80,
)
SMALL: dict[str, Any] = {"batch_size": 5, "examples_per_user": 2, "held_out_share": 0.2}
POLICIES = st.fixed_dictionaries(
    {},
    optional={
        "pool": st.just(9),
        "longest_wait_hours": st.just(3.0),
        "smallest_batch": st.just(2),
        "examples_per_conversation": st.just(1),
        "user_share": st.just(0.15),
        "share_window": st.just(3),
        "new_user_hours": st.just(1.5),
        "deduplicate_days": st.just(1),
        "newest": st.just((5, 2)),
    },
)

quickly = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def log_of(drawn: list[Drawn]) -> list[tuple[FeedbackScored | WithdrawalRequested, datetime]]:
    """Events and the time of their records. Answers, users and conversations are few, so that
    everything meets.
    """
    now = START
    log: list[tuple[FeedbackScored | WithdrawalRequested, datetime]] = []
    for number, answer, kind, user, conversation, hours in drawn:
        now += timedelta(hours=hours)
        if kind == "withdrawal":
            log.append((withdrawal(f"w{number}", user or "ann"), now))
            continue
        reward = -1.0 if kind == "thumbs_down" else 1.0
        parts = (
            RewardPart(
                name="validation" if kind == "validation" else "action", value=reward, weight=1.0
            ),
        )
        said: dict[str, Any] = {
            "input": words(f"p{answer // 2}", 8),
            "output": words(f"a{answer}"),
            "parts": parts,
        }
        whose: dict[str, Any] = {
            "user_id": user,
            "conversation_id": conversation,
            "response_id": f"r{answer}" if answer % 3 else None,
        }
        log.append((scored(f"e{number}", kind, reward, **said, **whose), now))
    return log


def run(
    log: list[tuple[FeedbackScored | WithdrawalRequested, datetime]],
    restarts: frozenset[int] = frozenset(),
    **policy: Any,
) -> SimulatedShard:
    world = SimulatedShard(file_of(**policy))
    for offset, (event, logged_at) in enumerate(log):
        if offset in restarts:
            world.restart()
        take(world, event, offset, logged_at)
    return world


def file_of(newest: tuple[int, int] | None = None, **policy: Any) -> ModelFile:
    """A small one; `newest` are how many of those trained on and of those held out, at least,
    others are compared with.
    """
    if newest is None:
        return model_file(**(SMALL | policy))
    file = model_file(**(SMALL | {"share_window": 1} | policy))
    lanes = {
        name: lane.model_copy(update={"replay_window": newest[0]})
        for name, lane in file.lanes.items()
    }
    return file.model_copy(
        update={"lanes": lanes, "gate": file.gate.model_copy(update={"held_out_newest": newest[1]})}
    )


def take(
    world: SimulatedShard,
    event: FeedbackScored | WithdrawalRequested,
    offset: int,
    logged_at: datetime,
) -> tuple[DatasetEntry, ...]:
    """Handle an event. Return its own entry, if it is new."""
    if isinstance(event, WithdrawalRequested):
        update = world.withdraw(event, offset, logged_at)
    else:
        update = world.decide(event, offset, logged_at)
    return (update.entry,) if update.entry is not None else ()


@quickly
@given(EVENTS, st.frozensets(st.integers(0, 79)), POLICIES)
def test_a_ledger_rebuilt_from_its_entries_goes_on_as_if_nothing_had_happened(
    drawn: list[Drawn], restarts: frozenset[int], policy: dict[str, Any]
) -> None:
    log = log_of(drawn)
    without, with_restarts = run(log, **policy), run(log, restarts, **policy)
    assert with_restarts.entries == without.entries
    assert with_restarts.batches == without.batches
    assert with_restarts.plans == without.plans
    assert with_restarts.duplicates == without.duplicates
    assert with_restarts.deferred == without.deferred


@quickly
@given(EVENTS, st.frozensets(st.integers(0, 79)))
def test_what_is_held_is_what_was_written_without_the_signatures_that_nothing_is_compared_with(
    drawn: list[Drawn], restarts: frozenset[int]
) -> None:
    world = run(log_of(drawn), restarts, newest=(5, 2))
    assert world.cached.keys() == world.entries.keys()
    assert all(
        DatasetEntry.model_validate_json(world.cached[key]) in (entry, entry.without_signatures())
        for key, entry in world.entries.items()
    )
    world.restart()
    trained = [name for number in world.batches for name in world.training_members(number)]
    held_out = [entry for entry in world.entries.values() if entry.decision == "held_out"]
    newest = sorted(held_out, key=lambda entry: entry.source.offset)[-2:]
    compared = {*trained[-5:], *(entry.feedback_id for entry in newest)}
    for key, entry in world.entries.items():
        whole = entry.is_waiting or entry.feedback_id in compared
        assert DatasetEntry.model_validate_json(world.cached[key]) == (
            entry if whole else entry.without_signatures()
        )


def test_an_example_that_left_the_window_is_held_in_a_third_of_its_bytes_and_stays_as_it_was_written() -> (
    None
):
    world = SimulatedShard(file_of(newest=(5, 2), held_out_share=0.0))
    for offset in range(12):
        world.decide(scored(f"e{offset}"), offset)
    sizes = {
        name: (
            len(world.cached[f"support#0|{name}"]),
            len(world.entries[f"support#0|{name}"].encode()),
        )
        for name in ("e0", "e9")
    }
    assert sizes["e9"][0] == sizes["e9"][1] == sizes["e0"][1]
    assert sizes["e0"][0] < sizes["e0"][1] / 3
    held = world.cached
    world.restart()
    assert world.cached == held


def test_who_was_withdrawn_from_the_newest_keeps_the_place_there() -> None:
    """Otherwise a ledger that was rebuilt after the withdrawal would compare with an older example,
    which had left before it.
    """
    world = SimulatedShard(file_of(newest=(5, 2), held_out_share=0.5, batch_size=3))
    events = [scored(f"e{offset}", user_id=f"user{offset}") for offset in range(100)]
    while True:
        offset = len(world.entries)
        world.decide(events[offset], offset)
        held_out = [
            at
            for at in range(offset + 1)
            if world.entries[f"support#0|e{at}"].decision == "held_out"
        ]
        if len(held_out) > 3 and not world.pending:
            break
    world.decide(scored("else", "retracted"), offset + 1)
    world.withdraw(withdrawal("w", f"user{held_out[-1]}"), offset + 2)
    left = events[held_out[-3]]
    again, position = (
        scored("again", input=left.input, output=left.output),
        Position(topic=FEEDBACK_SCORED, partition=0, offset=offset + 3),
    )
    uninterrupted = world.ledger.decide(again, position, START).entry
    world.restart()
    assert world.ledger.decide(again, position, START).entry == uninterrupted
    assert uninterrupted is not None
    assert uninterrupted.decision == "held_out"


@quickly
@given(EVENTS)
def test_batches_are_exactly_as_large_as_they_should_be_and_share_nothing(
    drawn: list[Drawn],
) -> None:
    world = run(log_of(drawn), examples_per_conversation=3)
    members = [feedback_id for batch in world.batches.values() for feedback_id in batch]
    assert len(members) == len(set(members))
    assert list(world.batches) == list(range(len(world.batches)))
    for closing in world.plans:
        training = closing.members_with("training")
        assert len(training) == SMALL["batch_size"]
        assert (
            max(
                Counter(entry.influence for entry in training if entry.influence).values(),
                default=0,
            )
            <= SMALL["examples_per_user"]
        )
        assert (
            max(
                Counter(entry.conversation for entry in training if entry.conversation).values(),
                default=0,
            )
            <= 3
        )
        order = [
            (entry.decision == "training", entry.reason == "correction")
            for entry in closing.members
        ]
        assert order == sorted(order, reverse=True)


@quickly
@given(EVENTS, POLICIES)
def test_every_event_is_in_exactly_one_state(drawn: list[Drawn], policy: dict[str, Any]) -> None:
    log = log_of(drawn)
    world = run(log, **(policy | {"deduplicate_days": 30}))
    assert {entry.feedback_id for entry in world.entries.values()} == {
        event.event_id for event, _ in log
    }
    assert world.duplicates == len(log) - len(world.entries)
    for entry in world.entries.values():
        assert [
            entry.is_waiting,
            entry.batch is not None,
            entry.decision in ("dropped", "withdrawal"),
        ].count(True) == 1
        assert (entry.example is not None) == entry.is_waiting
    assert world.pending == sum(
        entry.is_waiting and entry.decision == "training" for entry in world.entries.values()
    )


@quickly
@given(EVENTS, POLICIES)
def test_of_one_answer_at_most_one_example_waits_or_is_in_a_batch(
    drawn: list[Drawn], policy: dict[str, Any]
) -> None:
    world = run(log_of(drawn), **(policy | {"deduplicate_days": 30}))
    used = Counter(
        entry.answer_id
        for entry in world.entries.values()
        if entry.answer_id and entry.decision != "dropped"
    )
    assert max(used.values(), default=1) == 1


@quickly
@given(EVENTS, st.data())
def test_entries_that_a_crash_or_a_zombie_left_behind_are_made_whole(
    drawn: list[Drawn], data: st.DataObject
) -> None:
    world = run(log_of(drawn))
    again = SimulatedShard(model_file(**SMALL))
    written: dict[str, DatasetEntry] = {}
    for offset, (event, logged_at) in enumerate(log_of(drawn)):
        for entry in take(again, event, offset, logged_at):
            written[entry.key] = entry
    stale = [
        entry.key
        for entry in again.entries.values()
        if entry.batch is None and entry != written[entry.key]
    ]
    for key in (
        data.draw(st.lists(st.sampled_from(stale), unique=True), label="stale") if stale else ()
    ):
        again.entries[key] = written[key]
    for number, members in world.batches.items():
        for feedback_id in data.draw(
            st.lists(st.sampled_from(members), unique=True), label=f"batch {number}"
        ):
            key = f"support#0|{feedback_id}"
            again.entries[key] = written[key]
    for entry in repair_entries(again.state, lambda artefact: manifest_of(again, artefact)):
        again.entries[entry.key] = entry
    assert again.entries == world.entries


def test_a_batch_of_which_a_zombie_overwrote_every_entry_is_not_formed_again() -> None:
    """A worker decided on e0 and e1 and was paused. Its successor closed their batch and went on;
    then the worker woke up and wrote both entries as it had left them.
    """
    world = SimulatedShard(model_file(batch_size=2, held_out_share=0.0))
    world.decide(scored("e0"), 0)
    world.decide(scored("e1"), 1)
    (closed,) = world.batches.values()
    for offset, feedback_id in enumerate(closed):
        position = Position(topic=FEEDBACK_SCORED, partition=0, offset=offset)
        decided = Ledger(world.file, 0).decide(scored(feedback_id), position, START)
        assert decided.entry is not None
        world.entries[decided.entry.key] = decided.entry
    for entry in repair_entries(world.state, lambda artefact: manifest_of(world, artefact)):
        world.entries[entry.key] = entry
    world.restart()
    world.decide(scored("e2", "correction"), 2)
    assert world.batches == {0: ("e0", "e1")}
    world.decide(scored("e3"), 3)
    assert world.batches == {0: ("e0", "e1"), 1: ("e2", "e3")}


def test_numbers_go_on_although_no_entry_knows_of_the_last_batch() -> None:
    world = SimulatedShard(model_file(batch_size=2, held_out_share=0.0))
    world.decide(scored("e0"), 0)
    world.decide(scored("e1"), 1)
    world.entries.clear()
    world.restart()
    world.decide(scored("e2"), 2)
    world.decide(scored("e3"), 3)
    assert world.batches == {0: ("e0", "e1"), 1: ("e2", "e3")}


def manifest_of(world: SimulatedShard, artefact: Artefact) -> BatchManifest:
    number = int(artefact.uri.removesuffix(".json"))
    return BatchManifest(
        batch_id="b",
        model="support",
        model_digest=digest_of(b""),
        shard=0,
        number=number,
        lane="adaptive",
        files=(),
        counts=BatchCounts(training=5, preference=0, negative=0, held_out=0),
        dropped={},
        offsets=(),
        feedback_ids=world.batches[number],
        mean_reward=0,
        previous=None,
    )


def test_fifty_close_a_batch_and_the_fifty_first_begins_the_next() -> None:
    world = SimulatedShard(model_file(held_out_share=0.0))
    for offset in range(49):
        world.decide(scored(f"e{offset}"), offset)
    assert not world.batches
    world.decide(scored("e49"), 49)
    assert len(world.training_members(0)) == 50
    world.decide(scored("e50"), 50)
    assert (len(world.batches), world.pending) == (1, 1)


def test_corrections_come_first_then_the_order_of_the_log() -> None:
    world = SimulatedShard(model_file(batch_size=4, held_out_share=0.0))
    for offset, kind in enumerate(["thumbs_up", "correction", "accepted", "correction"]):
        world.decide(scored(f"e{offset}", kind), offset)
    assert world.training_members(0) == ["e1", "e3", "e0", "e2"]


def test_one_user_cannot_fill_a_batch_and_loses_nothing() -> None:
    world = SimulatedShard(model_file(batch_size=4, examples_per_user=2, held_out_share=0.0))
    for offset in range(7):
        world.decide(scored(f"ann{offset}", user_id="ann"), offset)
    assert (world.batches, world.pending) == ({}, 7)
    for offset in range(7, 11):
        world.decide(scored(f"bob{offset}", user_id="bob", conversation_id="c"), offset)
    assert world.training_members(0) == ["ann0", "ann1", "bob7", "bob8"]
    assert world.training_members(1) == ["ann2", "ann3", "bob9", "bob10"]
    assert world.pending == 3


def test_without_a_user_a_conversation_counts_and_without_both_nothing_does() -> None:
    world = SimulatedShard(model_file(batch_size=3, examples_per_user=1, held_out_share=0.0))
    for offset in range(3):
        world.decide(scored(f"c{offset}", conversation_id="one"), offset)
    assert not world.batches
    world.decide(scored("d3"), 3)
    world.decide(scored("d4"), 4)
    assert world.training_members(0) == ["c0", "d3", "d4"]


def test_what_rides_along_enters_the_next_batch() -> None:
    world = SimulatedShard(model_file(batch_size=2, held_out_share=0.0))
    for offset, kind in enumerate(
        ["thumbs_up", "thumbs_down", "retracted", "thumbs_up", "thumbs_down"]
    ):
        world.decide(scored(f"e{offset}", kind, -1.0 if kind == "thumbs_down" else 1.0), offset)
    assert world.batches == {0: ("e0", "e3", "e1")}


def test_the_same_feedback_at_another_offset_is_a_duplicate_and_at_its_own_a_replay() -> None:
    world = SimulatedShard(model_file(held_out_share=0.0))
    assert [world.decide(scored("e"), offset).event_status for offset in (0, 1, 0)] == [
        "new",
        "duplicate",
        "replay",
    ]
    assert len(world.entries) == 1
    other_source = world.decide(
        scored("e", source="/another", input=words("q"), output=words("r")), 2
    )
    assert other_source.event_status == "new"


def test_a_batch_whose_last_entry_was_written_before_the_crash_closes_on_the_replay() -> None:
    world = SimulatedShard(model_file(batch_size=2, held_out_share=0.0))
    world.decide(scored("e0"), 0)
    entry = world.ledger.decide(
        scored("e1"), Position(topic=FEEDBACK_SCORED, partition=0, offset=1), START
    ).entry
    assert entry is not None
    world.entries[entry.key] = entry
    world.restart()
    assert world.decide(scored("e0"), 0).event_status == "replay"
    assert world.batches == {0: ("e0", "e1")}
    assert world.decide(scored("e1"), 1).event_status == "replay"
    assert len(world.batches) == 1


def test_a_near_duplicate_of_what_waits_or_was_trained_on_is_dropped() -> None:
    world = SimulatedShard(model_file(batch_size=2, held_out_share=0.0))
    same: dict[str, Any] = {"input": words("p"), "output": words("a")}
    assert world.decide(scored("e0", **same), 0).entry is not None
    for offset in (1, 3):
        decided = world.decide(scored(f"e{offset}", **same), offset).entry
        assert decided is not None
        assert (decided.decision, decided.reason, decided.example) == (
            "dropped",
            "near_duplicate",
            None,
        )
        world.decide(scored(f"f{offset}"), offset + 1)
        world.restart()
    assert world.training_members(0) == ["e0", "f1"]


def test_a_prompt_like_a_held_out_one_is_contaminated() -> None:
    long = words("long", 200)
    held_out_share = 0.5
    near = [f"{long} {number}" for number in range(20)]
    world = SimulatedShard(model_file(held_out_share=held_out_share))
    decisions = [
        world.decide(scored(f"e{at}", input=prompt, output=words(f"answer{at}", 200)), at).entry
        for at, prompt in enumerate(near)
    ]
    first = next(at for at, entry in enumerate(decisions) if entry and entry.decision == "held_out")
    after = {(entry.decision, entry.reason) for entry in decisions[first:] if entry}
    assert after == {("held_out", "held_out"), ("dropped", "contaminated")}


def test_a_held_out_prompt_like_one_that_was_trained_on_is_contaminated_as_well() -> None:
    long = words("long", 200)
    near = [f"{long} {number}" for number in range(20)]
    world = SimulatedShard(model_file(batch_size=2, held_out_share=0.5))
    decisions = [
        world.decide(scored(f"e{at}", input=prompt, output=words(f"answer{at}", 200)), at).entry
        for at, prompt in enumerate(near)
    ]
    assert decisions[0] is not None
    sides = {entry.decision for entry in decisions if entry and entry.decision != "dropped"}
    assert sides == {decisions[0].decision}


def test_one_correction_pasted_by_many_users_counts_once() -> None:
    world = SimulatedShard(model_file(held_out_share=0.0))
    same = {"input": words("p"), "output": words("a"), "corrected_output": words("pasted", 40)}
    for number in range(20):
        world.decide(scored(f"e{number}", "correction", **same, user_id=f"user{number}"), number)
    assert world.pending == 1
    assert Counter(entry.reason for entry in world.entries.values()) == {
        "correction": 1,
        "near_duplicate": 19,
    }


def test_a_wait_that_is_too_long_closes_a_smaller_batch_and_none_that_is_too_small() -> None:
    world = SimulatedShard(
        model_file(batch_size=50, longest_wait_hours=2, smallest_batch=3, held_out_share=0.0)
    )
    for offset in range(2):
        world.decide(scored(f"e{offset}"), offset, START)
    late = START + timedelta(hours=3)
    world.restart()
    assert not world.ledger.is_overdue(late)
    world.decide(scored("e2"), 2, START + timedelta(hours=1))
    assert not world.batches
    assert (world.ledger.is_overdue(START + timedelta(hours=2)), world.ledger.is_overdue(late)) == (
        False,
        True,
    )
    world.apply(world.ledger.advance_clock(late))
    assert world.batches == {0: ("e0", "e1", "e2")}
    assert not world.ledger.is_overdue(late + timedelta(hours=9))


def test_a_pool_gives_the_most_informative_and_keeps_the_others() -> None:
    world = SimulatedShard(model_file(batch_size=2, pool=4, held_out_share=0.0))
    for offset, (kind, reward) in enumerate(
        [("thumbs_up", 0.9), ("thumbs_up", 0.3), ("correction", 0.0)]
    ):
        world.decide(scored(f"e{offset}", kind, reward), offset)
    assert not world.batches
    world.decide(scored("e3", "thumbs_up", 0.8), 3)
    assert world.batches == {0: ("e2", "e1")}
    assert world.pending == 2


def test_a_newcomer_s_examples_wait_and_those_of_the_known_do_not() -> None:
    world = SimulatedShard(model_file(batch_size=2, new_user_hours=5, held_out_share=0.0))
    world.decide(scored("first", user_id="ann"), 0, START)
    world.decide(scored("anonymous0"), 1, START)
    known = START + timedelta(hours=6)
    world.restart()
    world.decide(scored("second", user_id="ann"), 2, known)
    assert world.training_members(0) == ["first", "anonymous0"]
    world.decide(scored("stranger", user_id="eve"), 3, known)
    assert not world.batches.get(1)
    assert world.deferred == {"limits": 0, "newcomer": 1}
    world.decide(scored("anonymous1"), 4, known)
    assert world.training_members(1) == ["second", "anonymous1"]


def test_old_entries_are_forgotten_unless_they_are_needed() -> None:
    file = model_file(batch_size=2, held_out_share=0.0, deduplicate_days=7)
    world = SimulatedShard(file)
    later = START + timedelta(days=8)
    world.decide(scored("up", "thumbs_up"), 0, START)
    world.decide(scored("down", "thumbs_down", -1.0), 1, START)
    world.decide(scored("gone", "retracted"), 2, START)
    expired = world.decide(scored("up2"), 3, later).expired
    assert expired == ("support#0|gone",)
    assert world.decide(scored("again", "retracted"), 4, later).expired == ("support#0|down",)
    assert {entry.feedback_id for entry in world.entries.values()} == {"up", "up2", "again"}
    assert world.decide(scored("gone"), 5, later).event_status == "new"
    assert world.decide(scored("up"), 6, later).event_status == "duplicate"


def test_what_leaves_the_replay_window_no_longer_counts_as_similar() -> None:
    file = model_file(batch_size=2, held_out_share=0.0, share_window=1)
    file = file.model_copy(
        update={
            "lanes": {"adaptive": file.lanes["adaptive"].model_copy(update={"replay_window": 2})}
        }
    )
    world = SimulatedShard(file)
    same: dict[str, Any] = {"input": words("p"), "output": words("a")}
    for offset, event in enumerate(
        [scored("e0", **same), *(scored(f"e{number}") for number in range(1, 4))]
    ):
        world.decide(event, offset)
    world.restart()
    decided = world.decide(scored("e4", **same), 4).entry
    assert decided is not None
    assert decided.decision == "training"


def test_dropped_events_are_counted_for_the_batch_that_closes_next() -> None:
    world = SimulatedShard(model_file(batch_size=2, held_out_share=0.0))
    for offset, kind in enumerate(["retracted", "thumbs_up", "retracted", "regenerated"]):
        world.decide(scored(f"e{offset}", kind), offset)
    world.restart()
    source = Position(topic=FEEDBACK_SCORED, partition=0, offset=4)
    plan = world.ledger.decide(scored("e4"), source, START).batch
    assert plan is not None
    assert plan.dropped == {"low_quality": 1, "retracted": 2}
    manifest = Artefact(uri="m", digest=digest_of(b""))
    assert world.ledger.close_batch(plan, manifest).batch is None
