"""The limit on the bytes of one user that wait in a shard."""

import pytest

from shared.events import FeedbackScored
from tests.support.scored_feedback import SimulatedShard, model_file, scored, withdrawal, words

MIB = 1 << 20
NEVER_FULL = model_file(batch_size=1000, waiting_bytes_per_user=MIB, held_out_share=0).curation
FILE = model_file(
    batch_size=4, examples_per_user=4, user_share=1.0, waiting_bytes_per_user=MIB, held_out_share=0
)


def long_correction(event: str, user: str | None, size: int = 300_000) -> FeedbackScored:
    text = words(event, size // 9)
    return scored(event, "correction", user_id=user, corrected_output=text)


@pytest.mark.parametrize("user", ["ann", None])
def test_texts_of_one_user_wait_up_to_the_limit(user: str | None) -> None:
    shard = SimulatedShard(FILE.model_copy(update={"curation": NEVER_FULL}))
    for offset in range(6):
        shard.decide(long_correction(f"e{offset}", user), offset)
        shard.restart()
    reasons = [entry.reason for entry in shard.entries.values()]
    assert reasons == ["correction"] * 3 + ["waiting_limit"] * 3
    waiting = sum(len(value) for value in shard.cached.values())
    assert waiting < 3 * MIB
    other = shard.decide(long_correction("other", "bob"), 6).entry
    assert other is not None
    assert other.is_waiting


def test_one_text_may_always_wait() -> None:
    shard = SimulatedShard(FILE)
    shard.decide(long_correction("e", "ann", 2 * MIB), 0)
    assert shard.pending == 1


def test_room_returns_with_a_batch_and_a_withdrawal() -> None:
    shard = SimulatedShard(FILE)
    for offset in range(3):
        shard.decide(long_correction(f"e{offset}", "ann"), offset)
    shard.decide(long_correction("short", "bob", 100), 3)
    assert (shard.pending, len(shard.batches)) == (0, 1)
    for offset in range(4, 7):
        shard.decide(long_correction(f"e{offset}", "ann"), offset)
    assert shard.pending == 3
    shard.withdraw(withdrawal("w", "ann"), 7)
    again = shard.decide(long_correction("e8", "ann"), 8).entry
    assert again is not None
    assert again.is_waiting
