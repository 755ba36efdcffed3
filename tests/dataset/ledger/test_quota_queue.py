"""The queue compared with a simple reference implementation."""

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from services.dataset.ledger.quota_queue import QuotaQueue
from shared.config.curation import CurationSettings
from shared.events import Position
from shared.redaction.pseudonyms import pseudonym
from shared.storage.dataset_entries import DatasetEntry
from tests.support.scored_feedback import START

WHO = st.sampled_from([None, "user:ann", "user:bob", "user:cleo"])
WHERE = st.sampled_from([None, "talk", "chat"])


def entry(
    offset: int, influence: str | None, conversation: str | None, correction: bool
) -> DatasetEntry:
    return DatasetEntry(
        model="support",
        shard=0,
        feedback_id=f"e{offset}",
        decision="training",
        reason="correction" if correction else "approved",
        source=Position(topic="t", partition=0, offset=offset),
        occurred_at=START,
        logged_at=START,
        influence=influence,
        conversation=conversation,
    )


def reference_selection(
    waiting: list[DatasetEntry], policy: CurationSettings, used: Counter[str]
) -> list[DatasetEntry]:
    window = max(1, int(policy.user_share * policy.share_window * policy.batch_size))
    users: Counter[str] = Counter()
    conversations: Counter[str] = Counter()
    selected = []
    for example in sorted(
        waiting, key=lambda example: (example.reason != "correction", example.source.offset)
    ):
        user = example.influence or example.feedback_id
        if user.removeprefix("user:") not in policy.trusted_users and users[user] >= min(
            policy.examples_per_user, window - used[user]
        ):
            continue
        if (
            example.conversation
            and conversations[example.conversation] >= policy.examples_per_conversation
        ):
            continue
        users[user] += 1
        conversations[example.conversation or example.feedback_id] += 1
        selected.append(example)
    return selected


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_queue_matches_reference_implementation(
    data: st.DataObject,
) -> None:
    limits: dict[str, Any] = {
        "batch_size": 4,
        "examples_per_user": data.draw(st.integers(1, 3)),
        "examples_per_conversation": data.draw(st.integers(1, 4)),
        "user_share": data.draw(st.sampled_from([0.2, 0.5, 1.0])),
        "share_window": data.draw(st.integers(1, 3)),
        "trusted_users": data.draw(st.sampled_from([(), ("ann",), ("ann", "cleo")])),
    }
    policy = CurationSettings(**limits)
    queue, waiting, batches = QuotaQueue(policy), list[DatasetEntry](), list[list[DatasetEntry]]()
    for offset in range(data.draw(st.integers(1, 40))):
        if waiting and data.draw(st.integers(0, 5)) == 0:
            removed = data.draw(st.sampled_from(waiting))
            waiting.remove(removed)
            queue.remove(removed)
        else:
            new = entry(offset, data.draw(WHO), data.draw(WHERE), data.draw(st.booleans()))
            waiting.append(new)
            queue.add(new)
        used = Counter(
            example.influence or example.feedback_id
            for batch in batches[-policy.share_window :]
            for example in batch
        )
        allowed = reference_selection(waiting, policy, used)
        assert queue.select(1000) == allowed
        assert len(allowed) <= queue.max_selectable <= queue.size == len(waiting)
        held_back = sum(each.examples for each in queue.held_back())
        assert held_back == queue.size - queue.max_selectable
        if not any(example.conversation for example in waiting):
            assert queue.max_selectable == len(allowed)
        if len(allowed) >= policy.batch_size:
            batch = queue.select(policy.batch_size)
            assert batch == allowed[: policy.batch_size]
            for example in batch:
                waiting.remove(example)
                queue.remove(example)
            queue.record_batch(batch)
            batches.append(batch)


def test_window_share_defers_a_user_until_the_window_moves() -> None:
    policy = CurationSettings(batch_size=2, examples_per_user=2, user_share=0.5, share_window=2)
    queue = QuotaQueue(policy)
    anns = [entry(offset, "user:ann", None, False) for offset in range(4)]
    for example in anns:
        queue.add(example)
    assert queue.select(2) == anns[:2]
    for example in anns[:2]:
        queue.remove(example)
    queue.record_batch(anns[:2])
    assert (queue.max_selectable, queue.size, queue.select(2)) == (0, 2, [])
    queue.record_batch([entry(10, "user:bob", None, False)])
    assert queue.max_selectable == 0
    queue.record_batch([entry(11, "user:bob", None, False)])
    assert queue.select(2) == anns[2:]


def test_a_trusted_user_may_be_named_by_a_pseudonym() -> None:
    """Redaction replaces an e-mail address in `user_id`."""
    policy = CurationSettings(batch_size=10, examples_per_user=1, trusted_users=("Ann@x.org",))
    queue = QuotaQueue(policy)
    trusted = [entry(n, f"user:{pseudonym('user', 'ann@x.org')}", None, False) for n in range(8)]
    limited = [entry(n, "user:bob", None, False) for n in range(10, 18)]
    for example in (*trusted, *limited):
        queue.add(example)
    assert queue.select(20) == [*trusted, limited[0]]
    assert queue.max_selectable == 9
