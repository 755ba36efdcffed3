"""The way of a trial through the registry: brought to the targets, hinted at, heard, and over."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from services.registry.handlers import HandlerContext, checkpoint_saved
from services.registry.rollout.canary_test import in_canary_share
from services.registry.rollout.holds import hold
from services.registry.rollout.live_monitor import monitor_live_rewards
from services.registry.store.queries import canary_trial_of
from services.registry.versions.moves import promote_by_operator
from shared.clock import ManualClock
from shared.config.canary import CanarySettings
from shared.config.model_file import Models
from shared.events import DeploymentFailed, Event, VersionDeployed
from shared.messaging.bus import Record
from shared.messaging.codec import encode
from shared.messaging.topics import FEEDBACK_SCORED, TRAINING_CHECKPOINTS
from tests.registry.credentials import READER
from tests.registry.deploy.test_deployment import Stage
from tests.registry.samples import MODEL, NOW, DatabaseFixture, checkpoint, feedback

RULE = CanarySettings(share=0.3, rewards=60, hours=48, minimum_rewards=10)
TRIED = MODEL.model_copy(update={"canary": RULE})
USERS = [f"user {number}" for number in range(300)]


def record(topic: str, event: Event) -> Record:
    value, headers = encode(event, "test")
    return Record(topic, 0, 0, b"support", value, tuple(headers))


class Tried(Stage):
    """A registry whose model file asks for trials, and users who were heard before."""

    def __init__(self, registry_db: DatabaseFixture, folder: Path) -> None:
        self.clock = ManualClock(NOW)
        super().__init__(registry_db, folder, self.clock)
        self.registry.models = Models({"support": TRIED}, folder)
        self.base = registry_db.champion
        registry_db.run(
            lambda session: monitor_live_rewards(
                session, MODEL, [feedback(self.base, 0.5, user) for user in USERS], NOW
            )
        )

    async def gate_promotes(self, run: str) -> None:
        await self.registry.handle(
            record(TRAINING_CHECKPOINTS, checkpoint(run, self.registry_db.champion))
        )

    async def on_trial(self, run: str = "r1") -> str:
        """The challenger, once it is served."""
        await self.gate_promotes(run)
        assert await self.reconcile()
        assert self.registry_db.aliases.challenger is not None
        return self.registry_db.aliases.challenger

    async def route(self, **query: str) -> dict[str, object]:
        async with self.client() as client:
            answer = await client.get("/api/models/support/route", params=query)
            assert answer.status_code == 200, answer.text
            assert answer.headers["cache-control"] == "private, max-age=10"
            shown: dict[str, object] = answer.json()
            return shown

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app), base_url="http://registry", headers=READER
        )

    async def say(self, version: str, reward: float, users: Sequence[str]) -> None:
        await self.registry.record_live_feedback(
            [record(FEEDBACK_SCORED, feedback(version, reward, user)) for user in users]
        )

    def metric(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, {"model": "support"} | labels)


@pytest.fixture
def stage(registry_db: DatabaseFixture, tmp_path: Path) -> Tried:
    return Tried(registry_db, tmp_path)


async def test_without_a_trial_everybody_gets_the_champion(stage: Tried) -> None:
    hint = {
        "model": "support",
        "version": stage.base,
        "alias": "champion",
        "share": 0.0,
        "until": None,
    }
    assert await stage.route(user="ann") == hint | {
        "served": [{"target": "fake", "name": "support"}]
    }
    assert (await stage.route())["version"] == stage.base


async def test_a_challenger_is_hinted_at_once_it_is_served_and_to_those_who_take_part(
    stage: Tried,
) -> None:
    await stage.reconcile()
    await stage.gate_promotes("r1")
    assert {str((await stage.route(user=user))["version"]) for user in USERS[:30]} == {
        stage.base
    }, "nobody serves it yet"
    version = await stage.on_trial()
    assert (stage.target.champion, stage.target.challenger, stage.target.verified) == (
        stage.base,
        version,
        [stage.base, version],
    )
    routed = {user: await stage.route(user=user) for user in USERS}
    for user, hint in routed.items():
        tried = in_canary_share("support", version, "user", user, RULE.share)
        assert (hint["version"], hint["alias"]) == (
            (version, "challenger") if tried else (stage.base, "champion")
        )
        assert hint["served"] == [
            {"target": "fake", "name": f"support:{version}" if tried else "support"}
        ]
        assert (hint["share"], hint["until"]) == (
            RULE.share,
            (NOW + timedelta(hours=48)).isoformat().replace("+00:00", "Z"),
        )
    part = sum(hint["alias"] == "challenger" for hint in routed.values()) / len(USERS)
    assert abs(part - RULE.share) < 4 * (0.3 * 0.7 / len(USERS)) ** 0.5
    assert (await stage.route())["alias"] == "champion"
    talks = {(await stage.route(conversation=f"talk {number}"))["alias"] for number in range(30)}
    assert talks == {"champion", "challenger"}


async def test_what_does_not_fit_is_refused(stage: Tried) -> None:
    async with stage.client() as client:
        assert (
            await client.get("/api/models/support/route", params={"user": ""})
        ).status_code == 422
        assert (
            await client.get("/api/models/support/route", params={"user": "x" * 1025})
        ).status_code == 422
        assert (await client.get("/api/models/nothing/route")).status_code == 404
        assert (
            await client.get("/api/models/support/route", headers={"Authorization": "Bearer wrong"})
        ).status_code == 401


async def test_the_same_after_a_restart_and_on_another_replica(
    stage: Tried, tmp_path: Path
) -> None:
    await stage.on_trial()
    other = Tried(stage.registry_db, tmp_path)
    assert [await stage.route(user=user) for user in USERS[:20]] == [
        await other.route(user=user) for user in USERS[:20]
    ]


async def test_a_worse_one_is_withdrawn_by_what_those_say_whom_it_answers(stage: Tried) -> None:
    version = await stage.on_trial()
    new = [user for user in USERS if (await stage.route(user=user))["version"] == version]
    old = [user for user in USERS if user not in new]
    await stage.say(version, -0.9, new[:20])
    assert stage.metric("ratchet_registry_on_trial") == 1
    await stage.say(stage.base, 0.9, old[:20])
    assert stage.registry_db.aliases.challenger is None
    assert stage.registry_db.champion == stage.base
    assert stage.metric("ratchet_registry_on_trial") == 0
    assert stage.metric("ratchet_registry_trial_wealth", direction="worse") > 50  # type: ignore[operator]
    assert stage.metric("ratchet_registry_withdrawals_total", quarantined="true") == 1
    assert {str((await stage.route(user=user))["version"]) for user in USERS[:30]} == {stage.base}
    assert stage.target.challenger == version
    assert await stage.reconcile()
    assert stage.target.challenger is None
    assert stage.target.champion == stage.base


async def test_one_that_is_promoted_is_switched_to_without_being_brought_again(
    stage: Tried,
) -> None:
    version = await stage.on_trial()
    new = [user for user in USERS if in_canary_share("support", version, "user", user, RULE.share)]
    old = [user for user in USERS if user not in new]
    await stage.say(version, 0.9, new[:40])
    await stage.say(stage.base, -0.9, old[:40])
    assert stage.registry_db.champion == version
    assert stage.metric("ratchet_registry_promotions_total") == 1
    assert await stage.reconcile()
    assert (stage.target.champion, stage.target.previous, stage.target.challenger) == (
        version,
        stage.base,
        None,
    )
    assert stage.target.verified.count(version) == 1
    assert len(stage.enqueued(VersionDeployed)) == 2


async def test_the_page_of_the_model_shows_what_is_known_of_a_trial(stage: Tried) -> None:
    async with stage.client() as client:
        assert 'id="canary"' not in (await client.get("/models/support")).text
        await stage.gate_promotes("r1")
        assert "Being deployed to its targets" in (await client.get("/models/support")).text
        version = await stage.on_trial("r1")
        await stage.say(
            version,
            0.5,
            [
                user
                for user in USERS
                if in_canary_share("support", version, "user", user, RULE.share)
            ][:3],
        )
        await stage.say(
            stage.base,
            0.25,
            [
                user
                for user in USERS
                if not in_canary_share("support", version, "user", user, RULE.share)
            ][:2],
        )
        page = " ".join((await client.get("/models/support")).text.split())
    assert 'serves</span> 30 % <span class="quiet">of users' in page
    assert '2 <span class="quiet">of</span> 60' in page
    assert '+0.500<span class="quiet">, champion mean</span> +0.250' in page
    assert "At 50 the challenger is withdrawn or promoted immediately" in page


async def test_a_person_may_end_a_trial_or_stop_it(stage: Tried) -> None:
    version = await stage.on_trial()
    tried = next(
        user for user in USERS if in_canary_share("support", version, "user", user, RULE.share)
    )
    assert (await stage.route(user=tried))["version"] == version
    stage.registry_db.run(lambda session: hold(session, "support", "operator", "an incident", NOW))
    hint = await stage.route(user=tried)
    assert (hint["version"], hint["share"], hint["until"]) == (stage.base, 0.0, None)
    stage.registry_db.run(
        lambda session: promote_by_operator(session, "support", None, "good", NOW)
    )
    assert (await stage.route(user=tried))["alias"] == "champion"
    assert stage.registry_db.champion == version


async def test_one_that_answers_wrongly_is_tried_by_nobody(stage: Tried) -> None:
    await stage.reconcile()
    stage.target.answers_wrongly = {1}
    await stage.gate_promotes("r1")
    for _ in range(2):
        assert await stage.reconcile(), "the champion is served"
    version = stage.registry_db.aliases.challenger
    assert stage.target.challenger is None
    assert version not in stage.target.versions
    (failure,) = stage.enqueued(DeploymentFailed)
    assert '"step":"verify"' in failure
    assert {str((await stage.route(user=user))["version"]) for user in USERS[:30]} == {stage.base}
    stage.target.answers_wrongly = set()
    await stage.reconcile()
    assert stage.target.challenger == version


async def test_a_target_that_has_lost_everything_gets_the_challenger_again(stage: Tried) -> None:
    version = await stage.on_trial()
    stage.target.versions.clear()
    stage.target.champion = stage.target.previous = stage.target.challenger = None
    assert await stage.reconcile()
    serving = await stage.target.inspect("support")
    assert (serving.champion, serving.challenger) == (stage.base, version)


async def test_a_challenger_stays_at_hand_however_few_versions_may(stage: Tried) -> None:
    await stage.reconcile()
    for run in ("r1", "r2", "r3"):
        stage.promote(run)
        await stage.reconcile()
    version = await stage.on_trial("r4")
    for _ in range(3):
        await stage.reconcile()
    assert version in stage.target.versions
    assert stage.target.challenger == version


async def test_where_no_target_serves_two_what_the_gate_promotes_is_champion_at_once(
    stage: Tried,
) -> None:
    stage.target.supports_canary = False
    await stage.gate_promotes("r1")
    assert stage.registry_db.champion != stage.base
    assert stage.registry_db.run(lambda session: canary_trial_of(session, "support")) is None
    assert await stage.reconcile()


async def test_a_model_file_that_says_nothing_of_a_canary_has_none(
    stage: Tried, tmp_path: Path
) -> None:
    stage.registry.models = Models({"support": MODEL}, tmp_path)
    await stage.gate_promotes("r1")
    assert stage.registry_db.champion != stage.base


async def test_time_ends_a_trial_of_which_nobody_said_anything(stage: Tried) -> None:
    version = await stage.on_trial()
    watching = asyncio.create_task(stage.registry.watch_trials(0.01))
    try:
        await asyncio.sleep(0.1)
        assert stage.registry_db.champion == stage.base
        stage.clock.advance(48 * 3600)
        async with asyncio.timeout(10):
            while stage.registry_db.champion != version:
                await asyncio.sleep(0.02)
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


async def test_an_outcome_that_comes_again_begins_no_second_trial(stage: Tried) -> None:
    await stage.on_trial()
    stage.registry_db.run(
        lambda session: promote_by_operator(session, "support", None, "good", NOW)
    )
    assert (
        stage.registry_db.run(
            lambda session: checkpoint_saved(
                session, checkpoint("r1", stage.base), HandlerContext(NOW, canary=RULE)
            )
        )
        == []
    )
    assert stage.registry_db.run(lambda session: canary_trial_of(session, "support")) is None
