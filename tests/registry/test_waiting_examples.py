"""Reports of waiting examples in the registry: the newest of each shard counts, shards add up."""

from datetime import timedelta
from functools import partial
from typing import Any

from services.registry.api.views import model_view
from services.registry.handlers import waiting_reported
from shared.events import HeldBack, WaitingReported, WaitingStatus
from tests.support.registry_events import CONTEXT, NOW, DatabaseFixture, waiting_report

FEW = WaitingStatus(
    needed=50,
    usable=15,
    held_back=(HeldBack(limit="examples_per_user", examples=9, sources=3),),
    smallest_batch=10,
)
MORE = WaitingStatus(
    needed=50,
    usable=40,
    held_back=(
        HeldBack(limit="examples_per_user", examples=1, sources=1),
        HeldBack(limit="examples_per_conversation", examples=2, sources=1),
    ),
    new_users=4,
    smallest_batch=10,
    smaller_batch_at=NOW + timedelta(hours=1),
)


def shown(database: DatabaseFixture, *reports: WaitingReported) -> Any:
    for report in reports:
        database.run(partial(waiting_reported, event=report, _=CONTEXT))
    return database.run(lambda session: model_view(session, "support"))["waiting_examples"]


def test_a_model_without_a_report_shows_none(registry_db: DatabaseFixture) -> None:
    assert shown(registry_db) is None
    assert shown(registry_db, waiting_report(MORE, model="other")) is None


def test_the_text_is_that_of_the_command(registry_db: DatabaseFixture) -> None:
    view = shown(registry_db, waiting_report(FEW))
    assert view["text"] == (
        "50 needed: 15 usable, 9 held back by examples_per_user (3 users); closes with 35 more"
    )
    assert (view["needed"], view["usable"], view["reported_at"]) == (50, 15, NOW)


def test_the_newest_report_counts_in_any_order(registry_db: DatabaseFixture) -> None:
    older, newer = waiting_report(FEW), waiting_report(MORE, seconds=5)
    for order in ((older, newer), (newer, older), (newer, newer)):
        view = shown(registry_db, *order)
        assert (view["usable"], view["reported_at"]) == (40, newer.occurred_at)


def test_shards_add_up_and_the_fullest_closes(registry_db: DatabaseFixture) -> None:
    view = shown(registry_db, waiting_report(FEW), waiting_report(MORE, shard=1, seconds=7))
    assert view["text"] == (
        "50 needed in one of 2 shards: 55 usable, 10 held back by examples_per_user (4 users), "
        "2 held back by examples_per_conversation (1 conversation), 4 held back by new_user_hours; "
        "first closes with 10 more, or with 10 from 2026-07-01 13:00 UTC on"
    )
    assert (view["usable"], view["new_users"], view["reported_at"]) == (
        55,
        4,
        NOW + timedelta(seconds=7),
    )
    assert [(row["shard"], row["text"]) for row in view["shards"]] == [
        (0, str(FEW)),
        (1, str(MORE)),
    ]
