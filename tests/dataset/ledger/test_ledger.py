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
        st.integers(0, 60),  # the event id; ids repeat, because applications send duplicates
        st.integers(0, 25),  # the rated answer
        st.sampled_from(KINDS),
        st.sampled_from([None, "ann", "bob", "cleo", "dan"]),
        st.sampled_from([None, "talk", "chat"]),
        st.sampled_from([0.0, 0.01, 1.0]),  # hours since the previous event
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
    """Return events with the time of their records.

    Answers, users and conversations are few, so that events interact.
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
        content: dict[str, Any] = {
            "input": words(f"p{answer // 2}", 8),
            "output": words(f"a{answer}"),
            "parts": parts,
        }
        author: dict[str, Any] = {
            "user_id": user,
            "conversation_id": conversation,
            "response_id": f"r{answer}" if answer % 3 else None,
        }
        log.append((scored(f"e{number}", kind, reward, **content, **author), now))
    return log


def run(
    log: list[tuple[FeedbackScored | WithdrawalRequested, datetime]],
    restarts: frozenset[int] = frozenset(),
    **policy: Any,
) -> SimulatedShard:
    shard = SimulatedShard(file_of(**policy))
    for offset, (event, logged_at) in enumerate(log):
        if offset in restarts:
            shard.restart()
        handle(shard, event, offset, logged_at)
    return shard


def file_of(newest: tuple[int, int] | None = None, **policy: Any) -> ModelFile:
    """Return a model file with small limits.

    `newest` are the minimum numbers of newest training and held-out examples that new ones are
    compared with.
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


def handle(
    shard: SimulatedShard,
    event: FeedbackScored | WithdrawalRequested,
    offset: int,
    logged_at: datetime,
) -> tuple[DatasetEntry, ...]:
    """Handle an event. Return its own entry, if it is new."""
    if isinstance(event, WithdrawalRequested):
        update = shard.withdraw(event, offset, logged_at)
    else:
        update = shard.decide(event, offset, logged_at)
    return (update.entry,) if update.entry is not None else ()


@quickly
@given(EVENTS, st.frozensets(st.integers(0, 79)), POLICIES)
def test_rebuilt_ledger_continues_unchanged(
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
def test_cached_entries_lack_only_unused_texts(
    drawn: list[Drawn], restarts: frozenset[int]
) -> None:
    shard = run(log_of(drawn), restarts, newest=(5, 2))
    assert shard.cached.keys() == shard.entries.keys()
    assert all(
        DatasetEntry.model_validate_json(shard.cached[key]) in (entry, entry.without_texts())
        for key, entry in shard.entries.items()
    )
    shard.restart()
    trained = [name for number in shard.batches for name in shard.training_members(number)]
    held_out = [entry for entry in shard.entries.values() if entry.decision == "held_out"]
    newest = sorted(held_out, key=lambda entry: entry.source.offset)[-2:]
    compared = {*trained[-5:], *(entry.feedback_id for entry in newest)}
    for key, entry in shard.entries.items():
        whole = entry.is_waiting or entry.feedback_id in compared
        assert DatasetEntry.model_validate_json(shard.cached[key]) == (
            entry if whole else entry.without_texts()
        )


def test_evicted_examples_take_a_third_of_the_memory() -> None:
    shard = SimulatedShard(file_of(newest=(5, 2), held_out_share=0.0))
    for offset in range(12):
        event = scored(f"e{offset}", input=words(f"p{offset}", 55), output=words(f"a{offset}", 55))
        shard.decide(event, offset)
    sizes = {
        name: (
            len(shard.cached[f"support#0|{name}"]),
            len(shard.entries[f"support#0|{name}"].encode()),
        )
        for name in ("e0", "e9")
    }
    assert sizes["e9"][0] == sizes["e9"][1] == sizes["e0"][1]
    assert sizes["e0"][0] < sizes["e0"][1] / 3
    cached = shard.cached
    shard.restart()
    assert shard.cached == cached


def test_withdrawn_examples_keep_their_place_in_the_window() -> None:
    """Otherwise a ledger rebuilt after the withdrawal would compare with an older example that had
    already left the window.
    """
    shard = SimulatedShard(file_of(newest=(5, 2), held_out_share=0.5, batch_size=3))
    events = [scored(f"e{offset}", user_id=f"user{offset}") for offset in range(100)]
    while True:
        offset = len(shard.entries)
        shard.decide(events[offset], offset)
        held_out = [
            at
            for at in range(offset + 1)
            if shard.entries[f"support#0|e{at}"].decision == "held_out"
        ]
        if len(held_out) > 3 and not shard.pending:
            break
    shard.decide(scored("else", "retracted"), offset + 1)
    shard.withdraw(withdrawal("w", f"user{held_out[-1]}"), offset + 2)
    left = events[held_out[-3]]
    again, position = (
        scored("again", input=left.input, output=left.output),
        Position(topic=FEEDBACK_SCORED, partition=0, offset=offset + 3),
    )
    uninterrupted = shard.ledger.decide(again, position, START).entry
    shard.restart()
    assert shard.ledger.decide(again, position, START).entry == uninterrupted
    assert uninterrupted is not None
    assert uninterrupted.decision == "held_out"


@quickly
@given(EVENTS)
def test_batches_have_the_exact_size_and_share_no_event(
    drawn: list[Drawn],
) -> None:
    shard = run(log_of(drawn), examples_per_conversation=3)
    members = [feedback_id for batch in shard.batches.values() for feedback_id in batch]
    assert len(members) == len(set(members))
    assert list(shard.batches) == list(range(len(shard.batches)))
    for plan in shard.plans:
        training = plan.members_with("training")
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
            (entry.decision == "training", entry.reason == "correction") for entry in plan.members
        ]
        assert order == sorted(order, reverse=True)


@quickly
@given(EVENTS, POLICIES)
def test_every_event_is_in_exactly_one_state(drawn: list[Drawn], policy: dict[str, Any]) -> None:
    log = log_of(drawn)
    shard = run(log, **(policy | {"deduplicate_days": 30}))
    assert {entry.feedback_id for entry in shard.entries.values()} == {
        event.event_id for event, _ in log
    }
    assert shard.duplicates == len(log) - len(shard.entries)
    for entry in shard.entries.values():
        assert [
            entry.is_waiting,
            entry.batch is not None,
            entry.decision in ("dropped", "withdrawal"),
        ].count(True) == 1
        assert (entry.example is not None) == entry.is_waiting
    assert shard.pending == sum(
        entry.is_waiting and entry.decision == "training" for entry in shard.entries.values()
    )


@quickly
@given(EVENTS, POLICIES)
def test_at_most_one_example_per_answer_is_in_a_batch(
    drawn: list[Drawn], policy: dict[str, Any]
) -> None:
    """And at most one waits: a correction may follow after the answer's batch."""
    shard = run(log_of(drawn), **(policy | {"deduplicate_days": 30}))
    used = Counter(
        (entry.answer_id, entry.batch and entry.batch.number)
        for entry in shard.entries.values()
        if entry.answer_id and entry.decision != "dropped"
    )
    assert max(used.values(), default=1) == 1


@quickly
@given(EVENTS, st.data())
def test_recovery_repairs_entries_after_crash_or_stale_write(
    drawn: list[Drawn], data: st.DataObject
) -> None:
    shard = run(log_of(drawn))
    again = SimulatedShard(model_file(**SMALL))
    written: dict[str, DatasetEntry] = {}
    for offset, (event, logged_at) in enumerate(log_of(drawn)):
        for entry in handle(again, event, offset, logged_at):
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
    for number, members in shard.batches.items():
        for feedback_id in data.draw(
            st.lists(st.sampled_from(members), unique=True), label=f"batch {number}"
        ):
            key = f"support#0|{feedback_id}"
            again.entries[key] = written[key]
    for entry in repair_entries(again.state, lambda artefact: manifest_of(again, artefact)):
        again.entries[entry.key] = entry
    assert again.entries == shard.entries


def test_batch_overwritten_by_a_stale_worker_is_not_formed_again() -> None:
    """A worker decides on e0 and e1 and is paused. Its successor closes their batch and continues.
    Then the worker resumes and writes its outdated entries of both.
    """
    shard = SimulatedShard(model_file(batch_size=2, held_out_share=0.0))
    shard.decide(scored("e0"), 0)
    shard.decide(scored("e1"), 1)
    (closed,) = shard.batches.values()
    for offset, feedback_id in enumerate(closed):
        position = Position(topic=FEEDBACK_SCORED, partition=0, offset=offset)
        decided = Ledger(shard.file, 0).decide(scored(feedback_id), position, START)
        assert decided.entry is not None
        shard.entries[decided.entry.key] = decided.entry
    for entry in repair_entries(shard.state, lambda artefact: manifest_of(shard, artefact)):
        shard.entries[entry.key] = entry
    shard.restart()
    shard.decide(scored("e2", "correction"), 2)
    assert shard.batches == {0: ("e0", "e1")}
    shard.decide(scored("e3"), 3)
    assert shard.batches == {0: ("e0", "e1"), 1: ("e2", "e3")}


def test_numbering_continues_from_batch_records_alone() -> None:
    shard = SimulatedShard(model_file(batch_size=2, held_out_share=0.0))
    shard.decide(scored("e0"), 0)
    shard.decide(scored("e1"), 1)
    shard.entries.clear()
    shard.restart()
    shard.decide(scored("e2"), 2)
    shard.decide(scored("e3"), 3)
    assert shard.batches == {0: ("e0", "e1"), 1: ("e2", "e3")}


def manifest_of(shard: SimulatedShard, artefact: Artefact) -> BatchManifest:
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
        feedback_ids=shard.batches[number],
        mean_reward=0,
        previous=None,
    )


def test_fifty_examples_close_a_batch() -> None:
    shard = SimulatedShard(model_file(held_out_share=0.0))
    for offset in range(49):
        shard.decide(scored(f"e{offset}"), offset)
    assert not shard.batches
    shard.decide(scored("e49"), 49)
    assert len(shard.training_members(0)) == 50
    shard.decide(scored("e50"), 50)
    assert (len(shard.batches), shard.pending) == (1, 1)


def test_corrections_come_first_then_log_order() -> None:
    shard = SimulatedShard(model_file(batch_size=4, held_out_share=0.0))
    for offset, kind in enumerate(["thumbs_up", "correction", "accepted", "correction"]):
        shard.decide(scored(f"e{offset}", kind), offset)
    assert shard.training_members(0) == ["e1", "e3", "e0", "e2"]


def test_one_user_cannot_fill_a_batch_and_loses_no_example() -> None:
    shard = SimulatedShard(model_file(batch_size=4, examples_per_user=2, held_out_share=0.0))
    for offset in range(7):
        shard.decide(scored(f"ann{offset}", user_id="ann"), offset)
    assert (shard.batches, shard.pending) == ({}, 7)
    for offset in range(7, 11):
        shard.decide(scored(f"bob{offset}", user_id="bob", conversation_id="c"), offset)
    assert shard.training_members(0) == ["ann0", "ann1", "bob7", "bob8"]
    assert shard.training_members(1) == ["ann2", "ann3", "bob9", "bob10"]
    assert shard.pending == 3


def test_three_trusted_users_fill_a_batch_of_fifty() -> None:
    """With the default limits, and although they are new users. A stranger's examples are still
    limited and delayed.
    """
    team = ("ada", "bob", "cleo")
    shard = SimulatedShard(model_file(held_out_share=0.0, new_user_hours=24.0, trusted_users=team))
    shard.decide(scored("x", user_id="eve"), 0)
    for offset in range(1, 51):
        shard.decide(scored(f"e{offset}", user_id=team[offset % 3]), offset)
    assert shard.training_members(0) == [f"e{offset}" for offset in range(1, 51)]
    assert shard.pending == 1


def test_conversation_limit_applies_without_user() -> None:
    shard = SimulatedShard(model_file(batch_size=3, examples_per_user=1, held_out_share=0.0))
    for offset in range(3):
        shard.decide(scored(f"c{offset}", conversation_id="one"), offset)
    assert not shard.batches
    shard.decide(scored("d3"), 3)
    shard.decide(scored("d4"), 4)
    assert shard.training_members(0) == ["c0", "d3", "d4"]


def test_attached_entries_enter_the_next_batch() -> None:
    shard = SimulatedShard(model_file(batch_size=2, held_out_share=0.0))
    for offset, kind in enumerate(
        ["thumbs_up", "thumbs_down", "retracted", "thumbs_up", "thumbs_down"]
    ):
        shard.decide(scored(f"e{offset}", kind, -1.0 if kind == "thumbs_down" else 1.0), offset)
    assert shard.batches == {0: ("e0", "e3", "e1")}


def test_duplicate_and_replay_differ_by_offset() -> None:
    shard = SimulatedShard(model_file(held_out_share=0.0))
    assert [shard.decide(scored("e"), offset).event_status for offset in (0, 1, 0)] == [
        "new",
        "duplicate",
        "replay",
    ]
    assert len(shard.entries) == 1
    other_source = shard.decide(
        scored("e", source="/another", input=words("q"), output=words("r")), 2
    )
    assert other_source.event_status == "new"


def test_full_batch_closes_on_replay_after_crash() -> None:
    shard = SimulatedShard(model_file(batch_size=2, held_out_share=0.0))
    shard.decide(scored("e0"), 0)
    entry = shard.ledger.decide(
        scored("e1"), Position(topic=FEEDBACK_SCORED, partition=0, offset=1), START
    ).entry
    assert entry is not None
    shard.entries[entry.key] = entry
    shard.restart()
    assert shard.decide(scored("e0"), 0).event_status == "replay"
    assert shard.batches == {0: ("e0", "e1")}
    assert shard.decide(scored("e1"), 1).event_status == "replay"
    assert len(shard.batches) == 1


def test_near_duplicates_are_dropped() -> None:
    shard = SimulatedShard(model_file(batch_size=2, held_out_share=0.0))
    same: dict[str, Any] = {"input": words("p"), "output": words("a")}
    assert shard.decide(scored("e0", **same), 0).entry is not None
    for offset in (1, 3):
        decided = shard.decide(scored(f"e{offset}", **same), offset).entry
        assert decided is not None
        assert (decided.decision, decided.reason, decided.example) == (
            "dropped",
            "near_duplicate",
            None,
        )
        shard.decide(scored(f"f{offset}"), offset + 1)
        shard.restart()
    assert shard.training_members(0) == ["e0", "f1"]


def test_prompt_similar_to_a_held_out_one_is_contaminated() -> None:
    long = words("long", 200)
    held_out_share = 0.5
    near = [f"{long}{'!' * number}" for number in range(20)]
    shard = SimulatedShard(model_file(held_out_share=held_out_share))
    decisions = [
        shard.decide(scored(f"e{at}", input=prompt, output=words(f"answer{at}", 200)), at).entry
        for at, prompt in enumerate(near)
    ]
    first = next(at for at, entry in enumerate(decisions) if entry and entry.decision == "held_out")
    after = {(entry.decision, entry.reason) for entry in decisions[first:] if entry}
    assert after == {("held_out", "held_out"), ("dropped", "contaminated")}


def test_held_out_prompt_similar_to_trained_is_contaminated() -> None:
    long = words("long", 200)
    near = [f"{long}{'!' * number}" for number in range(20)]
    shard = SimulatedShard(model_file(batch_size=2, held_out_share=0.5))
    decisions = [
        shard.decide(scored(f"e{at}", input=prompt, output=words(f"answer{at}", 200)), at).entry
        for at, prompt in enumerate(near)
    ]
    assert decisions[0] is not None
    sides = {entry.decision for entry in decisions if entry and entry.decision != "dropped"}
    assert sides == {decisions[0].decision}


def test_one_correction_pasted_by_many_users_counts_once() -> None:
    shard = SimulatedShard(model_file(held_out_share=0.0))
    same = {"input": words("p"), "output": words("a"), "corrected_output": words("pasted", 40)}
    for number in range(20):
        shard.decide(scored(f"e{number}", "correction", **same, user_id=f"user{number}"), number)
    assert shard.pending == 1
    assert Counter(entry.reason for entry in shard.entries.values()) == {
        "correction": 1,
        "near_duplicate": 19,
    }


def test_overdue_batch_closes_smaller_but_not_too_small() -> None:
    shard = SimulatedShard(
        model_file(batch_size=50, longest_wait_hours=2, smallest_batch=3, held_out_share=0.0)
    )
    for offset in range(2):
        shard.decide(scored(f"e{offset}"), offset, START)
    late = START + timedelta(hours=3)
    shard.restart()
    assert not shard.ledger.is_overdue(late)
    shard.decide(scored("e2"), 2, START + timedelta(hours=1))
    assert not shard.batches
    assert (shard.ledger.is_overdue(START + timedelta(hours=2)), shard.ledger.is_overdue(late)) == (
        False,
        True,
    )
    shard.apply(shard.ledger.advance_clock(late))
    assert shard.batches == {0: ("e0", "e1", "e2")}
    assert not shard.ledger.is_overdue(late + timedelta(hours=9))


def test_pool_selects_the_most_informative_and_keeps_the_rest() -> None:
    shard = SimulatedShard(model_file(batch_size=2, pool=4, held_out_share=0.0))
    for offset, (kind, reward) in enumerate(
        [("thumbs_up", 0.9), ("thumbs_up", 0.3), ("correction", 0.0)]
    ):
        shard.decide(scored(f"e{offset}", kind, reward), offset)
    assert not shard.batches
    shard.decide(scored("e3", "thumbs_up", 0.8), 3)
    assert shard.batches == {0: ("e2", "e1")}
    assert shard.pending == 2


def test_only_examples_of_new_users_are_delayed() -> None:
    shard = SimulatedShard(model_file(batch_size=2, new_user_hours=5, held_out_share=0.0))
    shard.decide(scored("first", user_id="ann"), 0, START)
    shard.decide(scored("anonymous0"), 1, START)
    after_hold = START + timedelta(hours=6)
    shard.restart()
    shard.decide(scored("second", user_id="ann"), 2, after_hold)
    assert shard.training_members(0) == ["first", "anonymous0"]
    shard.decide(scored("stranger", user_id="eve"), 3, after_hold)
    assert not shard.batches.get(1)
    assert shard.deferred == {"limits": 0, "newcomer": 1}
    shard.decide(scored("anonymous1"), 4, after_hold)
    assert shard.training_members(1) == ["second", "anonymous1"]


def test_old_entries_expire_unless_needed() -> None:
    file = model_file(batch_size=2, held_out_share=0.0, deduplicate_days=7)
    shard = SimulatedShard(file)
    later = START + timedelta(days=8)
    shard.decide(scored("up", "thumbs_up"), 0, START)
    shard.decide(scored("down", "thumbs_down", -1.0), 1, START)
    shard.decide(scored("gone", "retracted"), 2, START)
    expired = shard.decide(scored("up2"), 3, later).expired
    assert expired == ("support#0|gone",)
    assert shard.decide(scored("again", "retracted"), 4, later).expired == ("support#0|down",)
    assert {entry.feedback_id for entry in shard.entries.values()} == {"up", "up2", "again"}
    assert shard.decide(scored("gone"), 5, later).event_status == "new"
    assert shard.decide(scored("up"), 6, later).event_status == "duplicate"


def test_examples_outside_the_replay_window_are_not_compared() -> None:
    file = model_file(batch_size=2, held_out_share=0.0, share_window=1)
    file = file.model_copy(
        update={
            "lanes": {"adaptive": file.lanes["adaptive"].model_copy(update={"replay_window": 2})}
        }
    )
    shard = SimulatedShard(file)
    same: dict[str, Any] = {"input": words("p"), "output": words("a")}
    for offset, event in enumerate(
        [scored("e0", **same), *(scored(f"e{number}") for number in range(1, 4))]
    ):
        shard.decide(event, offset)
    shard.restart()
    decided = shard.decide(scored("e4", **same), 4).entry
    assert decided is not None
    assert decided.decision == "training"


def test_dropped_events_are_counted_in_the_next_batch() -> None:
    shard = SimulatedShard(model_file(batch_size=2, held_out_share=0.0))
    for offset, kind in enumerate(["retracted", "thumbs_up", "retracted", "regenerated"]):
        shard.decide(scored(f"e{offset}", kind), offset)
    shard.restart()
    source = Position(topic=FEEDBACK_SCORED, partition=0, offset=4)
    plan = shard.ledger.decide(scored("e4"), source, START).batch
    assert plan is not None
    assert plan.dropped == {"low_quality": 1, "retracted": 2}
    manifest = Artefact(uri="m", digest=digest_of(b""))
    assert shard.ledger.close_batch(plan, manifest).batch is None
