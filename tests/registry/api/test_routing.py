"""A canary trial in the registry: deployment, routing, feedback and its end."""

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
from shared.config.models import Models
from shared.events import DeploymentFailed, Event, VersionDeployed
from shared.messaging.bus import Record
from shared.messaging.codec import encode
from shared.messaging.topics import FEEDBACK_SCORED, TRAINING_CHECKPOINTS
from tests.registry.deploy.test_deployment import Stage
from tests.support.credentials import READER
from tests.support.registry_events import (
    MODEL,
    NOW,
    DatabaseFixture,
    checkpoint,
    feedback,
    introduce,
)

RULE = CanarySettings(share=0.3, rewards=60, hours=48, minimum_rewards=10)
CANARY_MODEL = MODEL.model_copy(update={"canary": RULE})
USERS = [f"user {number}" for number in range(300)]


def record(topic: str, event: Event) -> Record:
    value, headers = encode(event, "test")
    return Record(topic, 0, 0, b"support", value, tuple(headers))


class CanaryStage(Stage):
    """A registry with canary settings, and users who gave feedback before the trial."""

    def __init__(self, registry_db: DatabaseFixture, folder: Path) -> None:
        self.clock = ManualClock(NOW)
        super().__init__(registry_db, folder, self.clock)
        self.registry.models = Models({"support": CANARY_MODEL}, folder)
        self.base = registry_db.champion
        introduce(registry_db, USERS)
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
        """Return the challenger, after its deployment."""
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
def stage(registry_db: DatabaseFixture, tmp_path: Path) -> CanaryStage:
    return CanaryStage(registry_db, tmp_path)


async def test_without_trial_all_users_get_champion(stage: CanaryStage) -> None:
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


async def test_ready_challenger_is_routed_to_its_share_of_users(
    stage: CanaryStage,
) -> None:
    await stage.reconcile()
    await stage.gate_promotes("r1")
    assert {str((await stage.route(user=user))["version"]) for user in USERS[:30]} == {
        stage.base
    }, "not deployed yet"
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


async def test_invalid_route_requests_are_refused(stage: CanaryStage) -> None:
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


async def test_route_is_stable_across_restarts_and_replicas(
    stage: CanaryStage, tmp_path: Path
) -> None:
    await stage.on_trial()
    other = CanaryStage(stage.registry_db, tmp_path)
    assert [await stage.route(user=user) for user in USERS[:20]] == [
        await other.route(user=user) for user in USERS[:20]
    ]


async def test_worse_challenger_is_withdrawn(stage: CanaryStage) -> None:
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
    assert stage.registry_db.enqueued[-1] == "ratchet.VersionWithdrawn.v1"
    assert {str((await stage.route(user=user))["version"]) for user in USERS[:30]} == {stage.base}
    assert stage.target.challenger == version
    assert await stage.reconcile()
    assert stage.target.challenger is None
    assert stage.target.champion == stage.base


async def test_promoted_challenger_is_not_deployed_again(
    stage: CanaryStage,
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


async def test_model_page_shows_canary_trial(stage: CanaryStage) -> None:
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


async def test_operator_pauses_or_ends_trial(stage: CanaryStage) -> None:
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


async def test_unverified_challenger_serves_nobody(stage: CanaryStage) -> None:
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


async def test_emptied_target_gets_challenger_again(stage: CanaryStage) -> None:
    version = await stage.on_trial()
    stage.target.versions.clear()
    stage.target.champion = stage.target.previous = stage.target.challenger = None
    assert await stage.reconcile()
    serving = await stage.target.inspect("support")
    assert (serving.champion, serving.challenger) == (stage.base, version)


async def test_challenger_is_retained_beyond_version_limit(stage: CanaryStage) -> None:
    await stage.reconcile()
    for run in ("r1", "r2", "r3"):
        stage.promote(run)
        await stage.reconcile()
    version = await stage.on_trial("r4")
    for _ in range(3):
        await stage.reconcile()
    assert version in stage.target.versions
    assert stage.target.challenger == version


async def test_no_canary_capable_target_promotes_directly(
    stage: CanaryStage,
) -> None:
    stage.target.supports_canary = False
    await stage.gate_promotes("r1")
    assert stage.registry_db.champion != stage.base
    assert stage.registry_db.run(lambda session: canary_trial_of(session, "support")) is None
    assert await stage.reconcile()


async def test_no_canary_settings_means_no_trial(stage: CanaryStage, tmp_path: Path) -> None:
    stage.registry.models = Models({"support": MODEL}, tmp_path)
    await stage.gate_promotes("r1")
    assert stage.registry_db.champion != stage.base


async def test_trial_without_feedback_ends_by_time(stage: CanaryStage) -> None:
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


async def test_repeated_outcome_starts_no_second_trial(stage: CanaryStage) -> None:
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
