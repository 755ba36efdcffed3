"""The report of a batch: its contents, without user names, and a function of the batch only."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.dataset.snapshot.content import snapshot_content
from services.dataset.snapshot.report import histogram, policy_snapshot, report_of
from services.dataset.snapshot.report_page import render_page
from services.dataset.snapshot.writer import write_snapshot
from shared.events import Message
from shared.storage.object_store import MemoryStore, canonical_json
from shared.storage.snapshots import UserCounts
from tests.support.batches import FILE, batch_plan, member
from tests.support.scored_feedback import model_file

BATCH = batch_plan(
    member(
        "/shop|1",
        10,
        reason="correction",
        reward=-0.5,
        user_id="ann@home",
        model_version="v1",
        answer="same",
    ),
    member(
        "/shop|2",
        11,
        reason="correction",
        reward=-1.0,
        user_id="ann@home",
        model_version="v1",
        answer=" same ",
    ),
    member("/app|3", 12, user_id="bob@home", model_version="v2"),
    member("4", 14, reward=0.5, quality=0.75),
    member("/shop|5", 13, "negative", user_id="cleo@home"),
    member("/app|6", 15, "held_out", user_id="ann@home"),
    dropped={"near_duplicate": 3, "withdrawn": 1},
)


def test_composition_counts_contributors_and_feedback() -> None:
    compositions = report_of(BATCH, FILE, 0).made_of
    assert compositions["training"].sources == {"": 1, "/app": 1, "/shop": 2}
    assert compositions["training"].model_versions == {"": 1, "v1": 2, "v2": 1}
    assert compositions["training"].feedback_types == {"correction": 2, "thumbs_up": 2}
    assert compositions["training"].users == UserCounts(distinct=2, largest_share=0.5, unnamed=1)
    assert compositions["negative"].users == UserCounts(distinct=1, largest_share=1.0, unnamed=0)
    assert {kind: composition.examples for kind, composition in compositions.items()} == {
        "training": 4,
        "preference": 2,
        "negative": 1,
        "held_out": 1,
    }


def test_composition_counts_distinct_prompts_and_answers() -> None:
    again = member("7", 16, messages=(Message(role="user", content="Where IS my\norder?"),))
    alike = member("8", 17, messages=(Message(role="user", content="where is my order?"),))
    composition = report_of(batch_plan(again, alike), FILE, 0).made_of["training"]
    assert (composition.examples, composition.prompts, composition.answers) == (2, 1, 2)
    assert report_of(BATCH, FILE, 0).made_of["training"].answers == 3


def test_rewards_and_quality_are_summarised() -> None:
    report = report_of(BATCH, FILE, 0)
    reward, quality = report.made_of["training"].reward, report.made_of["training"].quality
    assert reward is not None
    assert quality is not None
    assert (reward.least, reward.mean, reward.most) == (-1.0, 0.0, 1.0)
    assert (quality.least, quality.mean, quality.most) == (0.75, 0.9375, 1.0)
    assert [bucket.examples for bucket in report.rewards] == [2, 0, 1, 0, 0, 0, 1, 2]


def test_decisions_and_reasons_are_counted() -> None:
    report = report_of(BATCH, FILE, 0)
    assert report.reasons == {
        "held_out": {"held_out": 1},
        "negative": {"low_reward": 1},
        "training": {"approved": 2, "correction": 2},
    }
    assert report.dropped == {"near_duplicate": 3, "withdrawn": 1}
    assert [(span.partition, span.first, span.last) for span in report.offsets] == [(0, 10, 15)]
    assert report.policy.curation["similarity"] == 0.9
    assert report.policy.reward["validation"] == 1.0


def test_report_names_no_user() -> None:
    report = report_of(BATCH, FILE, 0)
    assert "@home" not in canonical_json(report.model_dump(mode="json")).decode() + render_page(
        report
    )
    assert len(report.samples) == 5


def test_trusted_users_are_counted_and_not_named() -> None:
    policy = policy_snapshot(model_file(trusted_users=("ada", "bob")))
    assert policy.curation["trusted_users"] == 2
    assert "trusted_users" not in policy_snapshot(model_file()).curation


def test_samples_are_drawn_by_id_in_any_order() -> None:
    members = [member(f"m{number}", number) for number in range(20)]
    drawn = report_of(batch_plan(*members), FILE, 0).samples
    assert [sample.kind for sample in drawn] == ["training"] * 3
    assert drawn == report_of(batch_plan(*reversed(members)), FILE, 0).samples
    assert drawn != report_of(batch_plan(*members, number=1), FILE, 0).samples


def test_sampled_correction_has_its_rejected_answer() -> None:
    (sample,) = report_of(
        batch_plan(member("c", 0, reason="correction", rejected="no")), FILE, 0
    ).samples
    assert sample.rejected == "no"


def test_a_sample_has_the_comment_of_its_feedback() -> None:
    report = report_of(batch_plan(member("a", 0, comment="Why *so* long?")), FILE, 0)
    assert report.samples[0].comment == "Why *so* long?"
    assert "comment of the user" in render_page(report)
    assert "Why *so* long?" in render_page(report)


def test_a_report_without_comments_is_that_of_earlier_versions() -> None:
    assert b"comment" not in report_of(BATCH, FILE, 0).encode()


@given(st.lists(st.floats(-1, 1)))
def test_every_reward_is_in_exactly_one_bin(rewards: list[float]) -> None:
    bins = histogram(rewards)
    assert sum(bucket.examples for bucket in bins) == len(rewards)
    assert (bins[0].first, bins[-1].last) == (-1, 1)
    for bucket in bins:
        assert bucket.examples == sum(
            bucket.first <= reward < bucket.last or reward == bucket.last == 1 for reward in rewards
        )


@given(st.permutations(["near_duplicate", "retracted", "withdrawn", "late"]))
def test_snapshot_does_not_depend_on_the_order_of_reasons(reasons: list[str]) -> None:
    counts = {reason: len(reason) for reason in reasons}
    stores = MemoryStore(), MemoryStore()
    for store, dropped in zip(stores, (counts, dict(sorted(counts.items()))), strict=True):
        write_snapshot(
            store, snapshot_content(batch_plan(*BATCH.members, dropped=dropped), FILE, 0)
        )
    assert stores[0].objects == stores[1].objects


@pytest.mark.parametrize("held_back", [{}, {"limits": 4}])
def test_deferred_events_are_counted_separately(held_back: dict[str, int]) -> None:
    report = report_of(batch_plan(*BATCH.members, held_back=held_back), FILE, 0)
    assert report.held_back == held_back
    assert ("4 events deferred to a later batch" in render_page(report)) is bool(held_back)
