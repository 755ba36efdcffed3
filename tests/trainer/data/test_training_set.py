"""Selection of training data from manifests: deterministic, without quarantined batches, and no
prompt in both splits.
"""

from collections.abc import Collection
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.trainer.data.training_set import (
    MIN_WEIGHT,
    BatchExamples,
    Sample,
    TrainingSet,
    read_batches,
    select_examples,
)
from shared.config.model_file import LaneSettings
from shared.config.training import TrainingConfig
from shared.errors import DigestMismatch, InvalidArtefact, ObjectNotFound
from shared.events import Artefact, Message
from shared.storage.object_store import MemoryStore
from shared.storage.snapshots import Example
from tests.support.tickets import example, ticket, tickets, write_batch


def batch(number: int, training: range, held_out: range) -> BatchExamples:
    return BatchExamples(
        f"batch-{number}",
        [example(ticket(n), f"t{n}") for n in training],
        [example(ticket(n), f"h{n}") for n in held_out],
    )


def select_from(
    batches: list[BatchExamples],
    *,
    quarantined: tuple[str, ...] = (),
    withdrawn: Collection[str] = (),
    most: int = 500,
    replay: int = 5,
    window: int = 1000,
    newest: int = 10,
) -> TrainingSet:
    return select_examples(
        batches,
        quarantined,
        (),
        withdrawn=withdrawn,
        training_set=most,
        replay=replay,
        replay_window=window,
        held_out_newest=newest,
    )


HISTORY = [
    batch(3, range(30, 40), range(300, 303)),
    batch(2, range(20, 30), range(200, 203)),
    batch(1, range(10), range(100, 103)),
]


def test_all_new_examples_and_some_replay_are_selected() -> None:
    chosen = select_from(HISTORY)
    assert chosen.new == tickets(30, 10)
    assert len(chosen.replayed) == 5
    assert all(sample in [*tickets(20, 10), *tickets(0, 10)] for sample in chosen.replayed)


def test_replay_depends_only_on_the_batch_id() -> None:
    renamed = [batch(4, range(30, 40), range(300, 303)), *HISTORY[1:]]
    assert select_from(HISTORY) == select_from(HISTORY)
    assert select_from(HISTORY).replayed != select_from(renamed).replayed


def test_replay_is_limited_to_its_window() -> None:
    assert set(select_from(HISTORY, replay=10, window=10).replayed) == set(tickets(20, 10))


@pytest.mark.parametrize(("most", "replayed"), [(13, 3), (10, 0), (5, 0), (500, 20)])
def test_size_limit_drops_replayed_but_never_new_examples(most: int, replayed: int) -> None:
    chosen = select_from(HISTORY, most=most, replay=10_000)
    assert (len(chosen.new), len(chosen.replayed)) == (10, replayed)
    assert chosen.replayed == select_from(HISTORY, replay=replayed).replayed


def test_default_training_set_has_up_to_500_examples() -> None:
    lane = LaneSettings(training=TrainingConfig(replay=10_000))
    long_history = [batch(2, range(50), range(0)), batch(1, range(100, 1100), range(0))]
    chosen = select_from(
        long_history, most=lane.training_set, replay=lane.training.replay, window=lane.replay_window
    )
    assert (len(chosen.new), len(chosen.replayed)) == (50, 450)


def test_held_out_examples_are_the_newest() -> None:
    assert select_from(HISTORY, newest=4).held_out == [
        ticket(302),
        ticket(301),
        ticket(300),
        ticket(202),
    ]


@pytest.mark.parametrize(
    ("newest", "of_import", "of_feedback"), [(4, 2, 2), (10, 5, 5), (20, 12, 6), (1, 0, 1)]
)
def test_held_out_feedback_keeps_half_beside_an_import(
    newest: int, of_import: int, of_feedback: int
) -> None:
    """An import of 12 held-out examples after a history of 6."""
    current = replace(batch(9, range(50, 60), range(400, 412)), is_imported=True)
    selected = select_from([current, *HISTORY[1:]], newest=newest)
    held_out = selected.held_out
    imported = {sample.messages for sample in map(ticket, range(400, 412))}
    taken = [sample.messages in imported for sample in held_out]
    assert (taken.count(True), taken.count(False)) == (of_import, of_feedback)
    assert selected.mean_reward is None


def test_quarantined_batches_give_no_replay_and_no_held_out() -> None:
    chosen = select_from(HISTORY, quarantined=("batch-2",), replay=100)
    assert set(chosen.replayed) == set(tickets(0, 10))
    assert set(chosen.held_out) == {*tickets(300, 3), *tickets(100, 3)}


def test_withdrawn_examples_are_replaced_in_both_splits() -> None:
    withdrawn = {f"t{number}" for number in (30, 31, 20, 21)} | {"h302", "h200"}
    chosen = select_from(HISTORY, withdrawn=withdrawn, replay=100, newest=4)
    assert chosen.new == tickets(32, 8)
    assert set(chosen.replayed) == {*tickets(22, 8), *tickets(0, 10)}
    assert chosen.held_out == [ticket(301), ticket(300), ticket(202), ticket(201)]
    assert chosen.withdrawn == 2
    assert len(select_from(HISTORY, withdrawn=withdrawn, replay=10, window=10).replayed) == 10, (
        "the window extends further back"
    )


def correction(number: int, rejected: str) -> Example:
    return example(ticket(number), f"t{number}").model_copy(update={"rejected": rejected})


def disliked(number: int, answer: str) -> Example:
    return example(ticket(number), f"n{number}").model_copy(
        update={"answer": answer, "feedback_type": "thumbs_down"}
    )


JUDGED = replace(
    HISTORY[0],
    preference=[correction(30, "?"), correction(31, "!")],
    negative=[
        disliked(50, "no"),
        disliked(51, "nor that"),
        disliked(300, "held out"),
        disliked(30, "no"),
        disliked(31, ticket(31).answer),
    ],
)
"""The last two negatives have prompts of new examples; the last one equals the answer learned
there.
"""


def test_pairs_and_negatives_exclude_held_out_and_learned() -> None:
    chosen = select_from([JUDGED, *HISTORY[1:]])
    assert [(pair.messages, pair.answer, pair.rejected) for pair in chosen.pairs] == [
        (ticket(30).messages, ticket(30).answer, "?"),
        (ticket(31).messages, ticket(31).answer, "!"),
    ]
    assert [(sample.messages, sample.answer) for sample in chosen.negatives] == [
        (ticket(50).messages, "no"),
        (ticket(51).messages, "nor that"),
        (ticket(30).messages, "no"),
    ]
    assert not select_from([HISTORY[0], JUDGED]).negatives, (
        "those of an earlier batch were used in its own run"
    )


def test_golden_prompts_are_excluded_from_preferences() -> None:
    golden = {ticket(30).messages, ticket(50).messages}
    chosen = select_examples(
        [JUDGED], (), golden, training_set=500, replay=0, replay_window=0, held_out_newest=10
    )
    assert [pair.messages for pair in chosen.pairs] == [ticket(31).messages]
    assert [sample.messages for sample in chosen.negatives] == [ticket(51).messages]


def test_withdrawn_and_quarantined_preferences_are_excluded() -> None:
    chosen = select_from([JUDGED], withdrawn={"t30", "n50"})
    assert [pair.rejected for pair in chosen.pairs] == ["!"]
    assert [sample.answer for sample in chosen.negatives] == ["nor that", "no"]
    quarantined = select_from([JUDGED], quarantined=("batch-3",))
    assert (quarantined.pairs, quarantined.negatives) == ([], [])


def test_answer_liked_elsewhere_is_not_a_rejected_answer() -> None:
    liked = example(Sample(messages=ticket(30).messages, answer="?"), "t99").model_copy(
        update={"feedback_type": "thumbs_up"}
    )
    chosen = select_from([replace(JUDGED, training=[*JUDGED.training, liked])])
    assert [pair.rejected for pair in chosen.pairs] == ["!"]
    assert [sample.answer for sample in chosen.liked] == ["?"], "corrections are not liked answers"


def test_quality_is_the_weight_of_training_examples() -> None:
    weak = [
        weak_example.model_copy(update={"quality": quality})
        for weak_example, quality in zip(HISTORY[0].training, (0.6, 0.0), strict=False)
    ]
    chosen = select_from(
        [replace(HISTORY[0], training=weak), replace(HISTORY[1], training=weak, held_out=weak)],
        newest=1000,
    )
    assert [sample.weight for sample in chosen.new] == [], "both are held out"
    assert {sample.weight for sample in chosen.held_out} == {1.0}
    chosen = select_from([replace(HISTORY[0], training=weak)])
    assert [sample.weight for sample in chosen.new] == [0.6, MIN_WEIGHT]


@given(
    st.sets(st.sampled_from([f"{side}{number}" for number in range(310) for side in "th"])),
    st.integers(0, 30),
    st.integers(0, 12),
)
def test_withdrawn_examples_are_ignored_completely(
    withdrawn: set[str], replay: int, newest: int
) -> None:
    without = [
        BatchExamples(
            batch.batch_id,
            [example for example in batch.training if example.feedback_id not in withdrawn],
            [example for example in batch.held_out if example.feedback_id not in withdrawn],
        )
        for batch in HISTORY
    ]
    chosen = select_from(HISTORY, withdrawn=withdrawn, replay=replay, newest=newest)
    assert chosen == replace(
        select_from(without, replay=replay, newest=newest), withdrawn=chosen.withdrawn
    )


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 40), max_size=12), st.lists(st.integers(0, 40), max_size=6)
        ),
        min_size=1,
        max_size=6,
    ),
    st.sets(st.integers(0, 40), max_size=5),
)
def test_no_prompt_is_in_both_splits(
    history: list[tuple[list[int], list[int]]], golden: set[int]
) -> None:
    batches = [
        BatchExamples(
            f"b{index}",
            [example(ticket(n), f"{index}-{n}") for n in training],
            [example(ticket(n), f"{index}-{n}") for n in held_out],
        )
        for index, (training, held_out) in enumerate(history)
    ]
    references = {ticket(n).messages for n in golden}
    chosen = select_examples(
        batches, (), references, training_set=25, replay=20, replay_window=100, held_out_newest=8
    )
    learned = {sample.messages for sample in (*chosen.new, *chosen.replayed)}
    assert not learned & references
    assert not learned & {sample.messages for sample in chosen.held_out}
    assert len(chosen.held_out) <= 8
    assert len(chosen.new) + len(chosen.replayed) <= 25


def write_history(store: MemoryStore, count: int) -> list[Artefact]:
    manifests: list[Artefact] = []
    for number in range(count):
        previous = manifests[-1] if manifests else None
        announced = write_batch(
            store, "m", number, tickets(number * 10, 10), [ticket(1000 + number)], previous
        )
        manifests.append(announced.manifest)
    return manifests


def test_batches_are_read_from_newest_to_oldest() -> None:
    store = MemoryStore()
    batches = list(read_batches(store, write_history(store, 3)[-1]))
    assert [len(batch_read.training) for batch_read in batches] == [10, 10, 10]
    assert batches[0].training[0].messages == ticket(20).messages
    assert batches[2].held_out[0].messages == ticket(1000).messages


def test_missing_snapshot_ends_the_history() -> None:
    store = MemoryStore()
    manifests = write_history(store, 3)
    del store.objects[manifests[0].uri]
    assert len(list(read_batches(store, manifests[-1]))) == 2


def test_announced_snapshot_must_exist_and_be_intact() -> None:
    store = MemoryStore()
    newest = write_history(store, 2)[-1]
    store.objects["batches/m/0/training.jsonl"] += b" "
    with pytest.raises(DigestMismatch):
        list(read_batches(store, newest))
    del store.objects[newest.uri]
    with pytest.raises(ObjectNotFound):
        list(read_batches(store, newest))


def test_artefact_that_is_not_a_manifest_is_invalid() -> None:
    store = MemoryStore()
    with pytest.raises(InvalidArtefact):
        list(read_batches(store, store.put("x", b"{}")))


def test_samples_are_equal_by_prompt_and_answer() -> None:
    message = Message(role="user", content="a")
    assert Sample(messages=(message,), answer="b") == Sample(messages=(message,), answer="b")
    assert len({Sample(messages=(message,), answer=answer) for answer in "bc"}) == 2
