"""Votes on answers: the feedback that they become, once, in the name of the voter."""

from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from services.registry.comparisons import (
    KEPT,
    NONE_GOOD,
    UnknownComparison,
    Vote,
    VoteRefused,
    add_comparison,
    record_vote,
    require_comparison,
    shuffled,
)
from services.registry.store.audit_queries import OPERATOR
from services.registry.store.queries import unpublished_events
from shared.events import FeedbackReceived
from shared.identity import identity
from shared.messaging.codec import decode
from shared.messaging.topics import FEEDBACK_RECEIVED
from tests.support.registry_events import NOW, DatabaseFixture


def compare(database: DatabaseFixture, name: str = "c1", minutes: int = 0) -> None:
    answers = {"v2": "two", "v1": "one"}
    at = NOW + timedelta(minutes=minutes)
    add = partial(add_comparison, model="support", prompt="How?", answers=answers, blind=True)
    database.run(partial(add, comparison_id=name, now=at))


def vote(
    database: DatabaseFixture, choice: str, correction: str = "", by: str | None = "ada"
) -> list[FeedbackReceived]:
    work = partial(
        record_vote,
        model="support",
        comparison_id="c1",
        vote=Vote(choice, correction),
        now=NOW,
    )
    events: list[FeedbackReceived] = database.database.run_sync(work, {OPERATOR: by})
    return events


def facts(events: list[FeedbackReceived]) -> list[tuple[Any, ...]]:
    return [(event.feedback_type, event.output, event.corrected_output) for event in events]


@pytest.mark.parametrize(
    ("choice", "correction", "expected"),
    [
        ("1", "", [("thumbs_up", "one", None)]),
        ("0", "better", [("correction", "two", "better")]),
        ("0", "two", [("thumbs_up", "two", None)]),
        (NONE_GOOD, "", [("thumbs_down", "two", None), ("thumbs_down", "one", None)]),
        (NONE_GOOD, "better", [("correction", "two", "better"), ("thumbs_down", "one", None)]),
    ],
)
def test_a_vote_says_no_more_than_the_voter_did(
    registry_db: DatabaseFixture, choice: str, correction: str, expected: list[tuple[Any, ...]]
) -> None:
    """An answer that was not chosen is not bad for it."""
    compare(registry_db)
    assert facts(vote(registry_db, choice, correction)) == expected


def test_a_vote_is_ordinary_feedback_of_the_voter(registry_db: DatabaseFixture) -> None:
    compare(registry_db)
    vote(registry_db, "1")
    rows = registry_db.run(lambda session: unpublished_events(session, 100))
    (row,) = [row for row in rows if row.topic == FEEDBACK_RECEIVED]
    headers = [(name, content.encode()) for name, content in row.headers.items()]
    event = decode(row.value, headers, FeedbackReceived).event
    assert (event.input, event.user_id, row.key) == ("How?", "ada", "playground c1")
    assert event.model_version is None, "live monitoring and canary trials do not count votes"
    assert event.tags == {"source": "playground", "version": "v1"}


def test_a_comparison_takes_one_vote(registry_db: DatabaseFixture) -> None:
    compare(registry_db)
    with pytest.raises(VoteRefused, match="choose one"):
        vote(registry_db, "2")
    with pytest.raises(VoteRefused, match="choose one"):
        vote(registry_db, "")
    assert vote(registry_db, "0", by=None)[0].user_id == "operator"
    with pytest.raises(VoteRefused, match="already"):
        vote(registry_db, "1")


def test_old_comparisons_are_deleted(registry_db: DatabaseFixture) -> None:
    compare(registry_db)
    compare(registry_db, "c2", minutes=int(KEPT.total_seconds() // 60) + 1)
    with pytest.raises(UnknownComparison, match="deleted after 1 day"):
        vote(registry_db, "1")
    require = partial(require_comparison, comparison_id="c2")
    assert registry_db.run(partial(require, model="support")).prompt == "How?"
    with pytest.raises(UnknownComparison):
        registry_db.run(partial(require, model="other"))


def test_the_order_depends_on_the_comparison_alone() -> None:
    versions = ["v3", "v2", "v1"]
    orders = {tuple(shuffled(versions, identity("c", number))) for number in range(60)}
    assert len(orders) == 6
    assert shuffled(versions, "c") == shuffled(list(reversed(versions)), "c")
