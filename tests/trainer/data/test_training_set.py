"""What a run learns from is a function of manifests: deterministic, without quarantined batches, no
prompt on both sides.
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
from tests.trainer.tickets import example, ticket, tickets, write_batch


def batch(number: int, training: range, held_out: range) -> BatchExamples:
    return BatchExamples(
        f"batch-{number}",
        [example(ticket(n), f"t{n}") for n in training],
        [example(ticket(n), f"h{n}") for n in held_out],
    )


def choose(
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


def test_new_examples_come_whole_and_replay_from_before() -> None:
    chosen = choose(HISTORY)
    assert chosen.new == tickets(30, 10)
    assert len(chosen.replayed) == 5
    assert all(sample in [*tickets(20, 10), *tickets(0, 10)] for sample in chosen.replayed)


def test_replay_is_drawn_anew_for_each_batch_and_the_same_for_one() -> None:
    other = [batch(4, range(30, 40), range(300, 303)), *HISTORY[1:]]
    assert choose(HISTORY) == choose(HISTORY)
    assert choose(HISTORY).replayed != choose(other).replayed


def test_replay_reaches_as_far_as_its_window() -> None:
    assert set(choose(HISTORY, replay=10, window=10).replayed) == set(tickets(20, 10))


@pytest.mark.parametrize(("most", "replayed"), [(13, 3), (10, 0), (5, 0), (500, 20)])
def test_new_and_replayed_together_are_a_training_set_and_new_ones_are_never_left_out(
    most: int, replayed: int
) -> None:
    chosen = choose(HISTORY, most=most, replay=10_000)
    assert (len(chosen.new), len(chosen.replayed)) == (10, replayed)
    assert chosen.replayed == choose(HISTORY, replay=replayed).replayed


def test_by_default_a_run_learns_from_up_to_five_hundred() -> None:
    lane = LaneSettings(training=TrainingConfig(replay=10_000))
    long_history = [batch(2, range(50), range(0)), batch(1, range(100, 1100), range(0))]
    chosen = choose(
        long_history, most=lane.training_set, replay=lane.training.replay, window=lane.replay_window
    )
    assert (len(chosen.new), len(chosen.replayed)) == (50, 450)


def test_held_out_are_the_newest() -> None:
    assert choose(HISTORY, newest=4).held_out == [
        ticket(302),
        ticket(301),
        ticket(300),
        ticket(202),
    ]


def test_quarantined_batches_give_neither_replay_nor_held_out() -> None:
    chosen = choose(HISTORY, quarantined=("batch-2",), replay=100)
    assert set(chosen.replayed) == set(tickets(0, 10))
    assert set(chosen.held_out) == {*tickets(300, 3), *tickets(100, 3)}


def test_withdrawn_examples_are_on_neither_side_and_others_take_their_place() -> None:
    gone = {f"t{number}" for number in (30, 31, 20, 21)} | {"h302", "h200"}
    chosen = choose(HISTORY, withdrawn=gone, replay=100, newest=4)
    assert chosen.new == tickets(32, 8)
    assert set(chosen.replayed) == {*tickets(22, 8), *tickets(0, 10)}
    assert chosen.held_out == [ticket(301), ticket(300), ticket(202), ticket(201)]
    assert chosen.withdrawn == 2
    assert len(choose(HISTORY, withdrawn=gone, replay=10, window=10).replayed) == 10, (
        "the window reaches further"
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
"""The last two negatives have prompts of new examples; the very last one is what was learned there.
"""


def test_pairs_and_negatives_are_those_of_the_batch_and_never_what_is_held_out_or_learned() -> None:
    chosen = choose([JUDGED, *HISTORY[1:]])
    assert [(pair.messages, pair.answer, pair.rejected) for pair in chosen.pairs] == [
        (ticket(30).messages, ticket(30).answer, "?"),
        (ticket(31).messages, ticket(31).answer, "!"),
    ]
    assert [(sample.messages, sample.answer) for sample in chosen.negatives] == [
        (ticket(50).messages, "no"),
        (ticket(51).messages, "nor that"),
        (ticket(30).messages, "no"),
    ]
    assert not choose([HISTORY[0], JUDGED]).negatives, (
        "an earlier batch's were learned from in their time"
    )


def test_a_golden_prompt_is_neither_preferred_nor_unlearned() -> None:
    golden = {ticket(30).messages, ticket(50).messages}
    chosen = select_examples(
        [JUDGED], (), golden, training_set=500, replay=0, replay_window=0, held_out_newest=10
    )
    assert [pair.messages for pair in chosen.pairs] == [ticket(31).messages]
    assert [sample.messages for sample in chosen.negatives] == [ticket(51).messages]


def test_withdrawn_and_quarantined_pairs_and_negatives_are_not_learned_from() -> None:
    chosen = choose([JUDGED], withdrawn={"t30", "n50"})
    assert [pair.rejected for pair in chosen.pairs] == ["!"]
    assert [sample.answer for sample in chosen.negatives] == ["nor that", "no"]
    quarantined = choose([JUDGED], quarantined=("batch-3",))
    assert (quarantined.pairs, quarantined.negatives) == ([], [])


def test_a_wrong_answer_that_somebody_else_liked_is_no_rejected_one() -> None:
    liked = example(Sample(messages=ticket(30).messages, answer="?"), "t99").model_copy(
        update={"feedback_type": "thumbs_up"}
    )
    chosen = choose([replace(JUDGED, training=[*JUDGED.training, liked])])
    assert [pair.rejected for pair in chosen.pairs] == ["!"]
    assert [sample.answer for sample in chosen.liked] == ["?"], (
        "what is a correction was not liked as it was"
    )


def test_an_example_weighs_as_much_as_its_quality_says_where_it_is_learned() -> None:
    weak = [
        given.model_copy(update={"quality": quality})
        for given, quality in zip(HISTORY[0].training, (0.6, 0.0), strict=False)
    ]
    chosen = choose(
        [replace(HISTORY[0], training=weak), replace(HISTORY[1], training=weak, held_out=weak)],
        newest=1000,
    )
    assert [sample.weight for sample in chosen.new] == [], "both are held out"
    assert {sample.weight for sample in chosen.held_out} == {1.0}
    chosen = choose([replace(HISTORY[0], training=weak)])
    assert [sample.weight for sample in chosen.new] == [0.6, MIN_WEIGHT]


@given(
    st.sets(st.sampled_from([f"{side}{number}" for number in range(310) for side in "th"])),
    st.integers(0, 30),
    st.integers(0, 12),
)
def test_what_was_withdrawn_counts_as_if_it_had_never_been(
    gone: set[str], replay: int, newest: int
) -> None:
    without = [
        BatchExamples(
            batch.batch_id,
            [example for example in batch.training if example.feedback_id not in gone],
            [example for example in batch.held_out if example.feedback_id not in gone],
        )
        for batch in HISTORY
    ]
    chosen = choose(HISTORY, withdrawn=gone, replay=replay, newest=newest)
    assert chosen == replace(
        choose(without, replay=replay, newest=newest), withdrawn=chosen.withdrawn
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
def test_no_prompt_is_on_both_sides(
    history: list[tuple[list[int], list[int]]], golden: set[int]
) -> None:
    batches = [
        BatchExamples(
            f"b{place}",
            [example(ticket(n), f"{place}-{n}") for n in training],
            [example(ticket(n), f"{place}-{n}") for n in held_out],
        )
        for place, (training, held_out) in enumerate(history)
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


def written(store: MemoryStore, count: int) -> list[Artefact]:
    manifests: list[Artefact] = []
    for number in range(count):
        previous = manifests[-1] if manifests else None
        announced = write_batch(
            store, "m", number, tickets(number * 10, 10), [ticket(1000 + number)], previous
        )
        manifests.append(announced.manifest)
    return manifests


def test_batches_are_read_along_the_chain() -> None:
    store = MemoryStore()
    read = list(read_batches(store, written(store, 3)[-1]))
    assert [len(found.training) for found in read] == [10, 10, 10]
    assert read[0].training[0].messages == ticket(20).messages
    assert read[2].held_out[0].messages == ticket(1000).messages


def test_a_history_that_was_deleted_ends_there() -> None:
    store = MemoryStore()
    manifests = written(store, 3)
    del store.objects[manifests[0].uri]
    assert len(list(read_batches(store, manifests[-1]))) == 2


def test_what_is_announced_must_be_there_and_whole() -> None:
    store = MemoryStore()
    newest = written(store, 2)[-1]
    store.objects["batches/m/0/training.jsonl"] += b" "
    with pytest.raises(DigestMismatch):
        list(read_batches(store, newest))
    del store.objects[newest.uri]
    with pytest.raises(ObjectNotFound):
        list(read_batches(store, newest))


def test_an_artefact_that_is_no_manifest_is_unusable() -> None:
    store = MemoryStore()
    with pytest.raises(InvalidArtefact):
        list(read_batches(store, store.put("x", b"{}")))


def test_samples_are_told_apart_by_prompt_and_answer() -> None:
    message = Message(role="user", content="a")
    assert Sample(messages=(message,), answer="b") == Sample(messages=(message,), answer="b")
    assert len({Sample(messages=(message,), answer=answer) for answer in "bc"}) == 2
