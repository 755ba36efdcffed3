"""The deployer: targets serve the champion, and no version that fails verification."""

import asyncio
import os
from collections.abc import Collection
from contextlib import suppress
from functools import partial
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import select

from services.registry.api import routes as api
from services.registry.api.training_requests import routes as training_requests
from services.registry.api.training_requests.requests import TrainingStarts
from services.registry.api.training_requests.uploads import Uploads
from services.registry.app import Registry
from services.registry.deploy.deployer import Deployer
from services.registry.deploy.deployment_runner import DeployPolicy
from services.registry.deploy.merged_models import MergedModels
from services.registry.deploy.targets.folder import FolderTarget
from services.registry.deploy.targets.target import MergedModel, TargetState
from services.registry.handlers import checkpoint_saved, training_progressed
from services.registry.pages import routes as pages
from services.registry.pages.new_run.routes import add_new_run_pages
from services.registry.pages.playground.routes import add_playground_pages
from services.registry.store.outbox import OutboxPublisher
from services.registry.store.queries import history_of
from services.registry.store.tables import DeploymentRow, OutboxRow, VersionRow
from shared.clock import Clock, SystemClock
from shared.config.models import Models
from shared.events import DeploymentFailed, VersionDeployed
from shared.identity import digest_of
from shared.kafka.client import KafkaConsumer, KafkaProducer
from shared.kafka.topic_reader import KafkaTopicReader
from shared.logs import configure
from shared.messaging.bus import MemoryBus, publish
from shared.messaging.topics import (
    FEEDBACK_SCORED,
    MODELS_VERSIONS,
    TRAINING_CHECKPOINTS,
    TRAINING_PROGRESS,
    dead_letter_topic,
)
from shared.observability.metrics import Metrics
from shared.observability.tracing import NOOP_TRACING, Tracing
from shared.service.consume import consume, consume_batches
from shared.storage.object_store import MemoryStore
from tests.registry.fake_target import FakeTarget
from tests.support.credentials import OPERATOR, TOKENS
from tests.support.registry_events import (
    CONTEXT,
    MODEL,
    DatabaseFixture,
    checkpoint,
    feedback,
    introduce,
    progress,
)
from tests.support.runtime import runtime_of

LOG = configure("test", "error", "text")
MAX_UPLOAD_BYTES = 1 << 20
POLICY = DeployPolicy(keep_versions=1)


class FakeMergedModels(MergedModels):
    """Merged models without a base: the content of a file is the version's name."""

    def __init__(self, registry_db: DatabaseFixture, folder: Path) -> None:
        self._books, self._at = registry_db, folder
        self.merged: list[str] = []

    async def get(self, model: str, name: str) -> MergedModel:
        path = self._at / f"{name}.gguf"
        if not path.exists():
            self.merged.append(name)
            path.write_text(name)
        digest = digest_of(name.encode())

        def record(version: VersionRow | None) -> None:
            assert version is not None
            version.merged_digest = digest

        self._books.run(lambda session: record(session.get(VersionRow, (model, name))))
        return MergedModel(model, name, path, digest, {"adapter_config.json": b"{}"})

    async def delete(self, model: str, name: str) -> None:
        (self._at / f"{name}.gguf").unlink(missing_ok=True)

    async def versions_on_disk(self, model: str) -> Collection[str]:
        return {path.stem for path in self._at.glob("*.gguf")}


class Stage:
    """A registry with a fake target and an in-memory bus."""

    def __init__(
        self,
        registry_db: DatabaseFixture,
        folder: Path,
        clock: Clock | None = None,
        tracing: Tracing = NOOP_TRACING,
    ) -> None:
        self.registry_db = registry_db
        self.store = MemoryStore()
        self.target = FakeTarget()
        self.bus = MemoryBus()
        self.metrics = Metrics("registry")
        self.merged_models = FakeMergedModels(self.registry_db, folder)
        self.runtime = runtime_of(
            "registry", clock or SystemClock(), self.metrics, log=LOG, tracing=tracing
        )
        self.health = self.runtime.health
        self.deployer = Deployer(
            registry_db.database,
            {"support": [self.target]},
            self.merged_models,
            POLICY,
            self.runtime,
        )
        models = Models({"support": MODEL}, folder)
        self.registry = Registry(registry_db.database, models, self.deployer, self.runtime)
        self.app = api.build(self.registry, self.health, self.metrics.registry, lambda: TOKENS)
        self.starts = TrainingStarts(
            self.registry, self.store, Uploads(self.store, MAX_UPLOAD_BYTES), folder / "bases"
        )
        self.app.include_router(training_requests.routes(self.starts))
        pages.add_pages(self.app, self.registry, self.store)
        add_new_run_pages(self.app, self.starts)
        add_playground_pages(self.app, self.registry)

    def deployer_of(self, replica: str, metrics: Metrics | None = None) -> Deployer:
        """Return the deployer of another replica."""
        runtime = runtime_of("registry", SystemClock(), metrics or self.metrics, log=LOG)
        targets = {"support": [self.target]}
        return Deployer(
            self.registry_db.database,
            targets,
            self.merged_models,
            POLICY,
            runtime,
            replica,
        )

    def promote(self, run: str) -> str:
        base = self.registry_db.champion
        self.registry_db.run(
            lambda session: checkpoint_saved(session, checkpoint(run, base), CONTEXT)
        )
        return self.registry_db.champion

    async def reconcile(self) -> bool:
        return await self.deployer.reconcile("support", self.target)

    def enqueued(self, event_type: type[VersionDeployed] | type[DeploymentFailed]) -> list[str]:
        rows = self.registry_db.run(
            lambda session: session.scalars(select(OutboxRow).order_by(OutboxRow.id)).all()
        )
        return [
            row.value.decode() for row in rows if row.headers["ce_type"] == event_type.type_name()
        ]


@pytest.fixture
def stage(registry_db: DatabaseFixture, tmp_path: Path) -> Stage:
    return Stage(registry_db, tmp_path)


async def test_champion_is_deployed_once(stage: Stage) -> None:
    assert await stage.reconcile()
    assert stage.target.champion == stage.registry_db.champion
    assert stage.target.verified == [stage.registry_db.champion]
    assert await stage.reconcile()
    assert len(stage.enqueued(VersionDeployed)) == 1


async def test_version_that_fails_verification_is_removed(
    stage: Stage,
) -> None:
    await stage.reconcile()
    base = stage.registry_db.champion
    stage.target.answers_wrongly = {1}
    wrong = stage.promote("r1")
    assert not await stage.reconcile()
    assert stage.target.champion == base
    assert wrong not in stage.target.versions
    assert not await stage.reconcile()
    (failure,) = stage.enqueued(DeploymentFailed)
    assert '"step":"verify"' in failure
    assert "another answer" in failure
    assert base in failure
    stage.target.answers_wrongly = set()
    assert await stage.reconcile()
    assert stage.target.champion == wrong


async def test_much_slower_version_is_refused_and_timings_stored(
    stage: Stage,
) -> None:
    await stage.reconcile()
    base = stage.registry_db.champion
    stage.target.slow = {1}
    stage.promote("r1")
    assert not await stage.reconcile()
    assert stage.target.champion == base
    (failure,) = stage.enqueued(DeploymentFailed)
    assert (
        "a token takes 0.900 s, 0.100 s with the version served now: more than 5 times as long"
        in failure
    )
    stage.target.slow = set()
    assert await stage.reconcile()
    finding = stage.registry_db.run(
        lambda session: session.scalars(
            select(DeploymentRow).order_by(DeploymentRow.id.desc())
        ).first()
    )
    assert finding is not None
    assert finding.finding is not None
    assert (finding.finding["seconds_per_token"], finding.finding["seconds_per_token_before"]) == (
        0.1,
        0.1,
    )


async def test_target_that_lost_its_versions_gets_them_again(stage: Stage) -> None:
    await stage.reconcile()
    stage.promote("r1")
    await stage.reconcile()
    stage.target.versions.clear()
    stage.target.champion = stage.target.previous = None
    assert await stage.reconcile()
    assert stage.target.champion == stage.registry_db.champion
    assert stage.target.previous == stage.registry_db.aliases.previous


async def test_unavailable_target_is_reported_once(stage: Stage) -> None:
    stage.target.away = True
    assert not await stage.reconcile()
    assert not await stage.reconcile()
    (failure,) = stage.enqueued(DeploymentFailed)
    assert '"step":"probe"' in failure


async def test_old_versions_are_removed_and_deployed_again_on_demand(stage: Stage) -> None:
    base = stage.registry_db.champion
    await stage.reconcile()
    for run in ("r1", "r2", "r3", "r4"):
        stage.promote(run)
        await stage.reconcile()
    assert base not in stage.target.versions
    assert len(stage.target.versions) == 3
    async with DeployerRunning(stage), _client(stage) as client:
        answer = (
            await client.post(
                "/api/models/support/rollback", json={"to": base, "reason": "all of it was wrong"}
            )
        ).json()
    assert answer["deployed"] is True
    assert stage.target.champion == base


class DeployerRunning:
    """Run the deployer during the body."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._stage.deployer.run())

    async def __aexit__(self, *error: object) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task


class SlowToCancelTarget(FakeTarget):
    """A target whose calls take time to cancel."""

    inspecting: asyncio.Event

    async def inspect(self, model: str) -> TargetState:
        self.inspecting.set()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.2)
        raise AssertionError("the call is cancelled before")


async def test_deployer_can_be_cancelled_during_a_restart(stage: Stage) -> None:
    """The cancellation arrives while a loop waits for the work that it has just cancelled."""
    target = SlowToCancelTarget()
    target.inspecting = asyncio.Event()
    stage.registry.deployer._targets = {"support": [target]}
    running = asyncio.create_task(stage.deployer.run())
    await target.inspecting.wait()
    stage.deployer._restart("support")
    await asyncio.sleep(0.1)
    running.cancel()
    async with asyncio.timeout(5):
        await asyncio.wait({running})
    assert running.cancelled()


def _client(stage: Stage) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(stage.app), base_url="http://registry", headers=OPERATOR
    )


async def test_rollback_returns_once_previous_is_served(stage: Stage) -> None:
    base = stage.registry_db.champion
    new = stage.promote("r1")
    async with DeployerRunning(stage), _client(stage) as client:
        assert await stage.deployer.wait_until_deployed(
            "support", stage.registry_db.aliases.move, 5
        )
        answer = await client.post("/api/models/support/rollback", json={"reason": "worse in use"})
        assert answer.json() | {"seconds": 0} == {
            "from": new,
            "to": base,
            "deployed": True,
            "seconds": 0,
        }
        assert answer.json()["seconds"] < 1
        assert stage.target.champion == base
        history = (await client.get("/api/models/support/history")).json()["items"]
    assert (history[0]["actor"], history[0]["action"], history[0]["reason"]) == (
        "operator",
        "roll_back",
        "worse in use",
    )


async def test_rollback_works_on_a_replica_that_does_not_deploy(stage: Stage) -> None:
    base = stage.registry_db.champion
    new = stage.promote("r1")
    other_replica = stage.deployer_of("other")
    async with DeployerRunning(stage), _client(stage) as client:
        assert await stage.deployer.wait_until_deployed(
            "support", stage.registry_db.aliases.move, 5
        )
        stage.registry.deployer = other_replica
        assert await other_replica.reconcile("support", stage.target), (
            "another replica is responsible"
        )
        answer = (
            await client.post("/api/models/support/rollback", json={"reason": "worse in use"})
        ).json()
    assert (answer["from"], answer["to"], answer["deployed"]) == (new, base, True)
    assert stage.target.champion == base
    assert await other_replica.reconcile("support", stage.target), "the lease was released"
    assert stage.registry_db.run(
        lambda session: session.scalars(select(DeploymentRow.version)).all()
    ) == [
        new,
        base,
    ]


async def test_api_returns_the_lineage_of_a_version(stage: Stage) -> None:
    base = stage.registry_db.champion
    new = stage.promote("r1")
    async with _client(stage) as client:
        listed = (await client.get("/api/models")).json()["items"]
        assert [(row["model"], row["champion"], row["versions"]) for row in listed] == [
            ("support", new, 2)
        ]
        versions = (await client.get("/api/models/support/versions")).json()["items"]
        assert [row["version"] for row in versions] == [new, base]
        version = (await client.get(f"/api/models/support/versions/{new}")).json()
        assert (
            version["aliases"],
            version["parent_version"],
            version["training_loss"],
            version["epochs"],
        ) == (
            ["champion"],
            base,
            0.5,
            2,
        )
        assert (await client.get("/api/models/support/aliases/previous")).json()["version"] == base
        lineage = (await client.get(f"/api/versions/{new}/lineage")).json()
        assert [(step["version"], step["batch_id"]) for step in lineage["lineage"]] == [
            (new, "batch of r1"),
            (base, None),
        ]
        assert (await client.get("/api/runs/r1")).json()["state"] == "promoted"
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/readyz")).status_code == 503
        assert "ratchet_registry" in (await client.get("/metrics")).text


async def test_operator_promotes_the_challenger(stage: Stage) -> None:
    stage.promote("r1")
    stage.registry_db.run(
        lambda session: checkpoint_saved(session, checkpoint("r2", "v9_20200101_000000"), CONTEXT)
    )
    challenger = stage.registry_db.aliases.challenger
    async with DeployerRunning(stage), _client(stage) as client:
        answer = (
            await client.post("/api/models/support/promote", json={"reason": "read by hand"})
        ).json()
    assert answer["to"] == challenger == stage.registry_db.champion


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "detail"),
    [
        ("GET", "/api/models/none", None, 404, "models/none.yaml"),
        (
            "GET",
            "/api/models/support/versions/v7",
            None,
            404,
            "/api/models/support/versions lists them",
        ),
        ("GET", "/api/models/support/aliases/challenger", None, 404, "no challenger"),
        ("GET", "/api/runs/none", None, 404, "run_id"),
        ("GET", "/api/versions/none/lineage", None, 404, "/api/models"),
        ("GET", "/nowhere", None, 404, "/docs"),
        ("POST", "/api/models/support/rollback", {"reason": "x"}, 409, "name the version"),
        ("POST", "/api/models/support/rollback", {"to": None}, 422, "body.reason"),
        ("POST", "/api/models/support/promote", {"reason": "x"}, 409, "no challenger"),
    ],
)
async def test_errors_are_problem_details_with_advice(
    stage: Stage, method: str, path: str, body: dict[str, str] | None, status: int, detail: str
) -> None:
    async with _client(stage) as client:
        answer = await client.request(method, path, json=body)
    assert answer.status_code == answer.json()["status"] == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert detail in answer.json()["detail"]
    assert answer.json()["instance"] == path


async def test_name_with_nul_is_a_client_error(
    stage: Stage,
) -> None:
    """PostgreSQL rejects a text with a NUL; SQLite accepts it and finds no row."""
    async with _client(stage) as client:
        answer = await client.get("/api/runs/a%00b")
    assert answer.status_code in (404, 422)
    assert answer.json()["status"] == answer.status_code


async def test_page_is_complete_without_external_resources(stage: Stage) -> None:
    stage.promote("r1")
    for step in (1, 2, 3):
        stage.registry_db.run(
            partial(training_progressed, event=progress("r1", step, 1.0 / step), context=CONTEXT)
        )
    async with _client(stage) as client:
        page = (await client.get("/")).text
    assert stage.registry_db.champion in page
    assert "<polyline" in page
    assert "held_out: +0.5" in page
    assert "http://" not in page
    assert "https://" not in page


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o700])
async def test_readers_of_a_folder_target_read_its_files(tmp_path: Path, mode: int) -> None:
    root = tmp_path / "published"
    root.mkdir()
    root.chmod(mode)
    file = tmp_path / "model.gguf"
    file.write_bytes(b"model")
    merged = MergedModel(
        "support", "v1_x", file, digest_of(b"model"), {"adapter_model.safetensors": b"lora"}, ()
    )
    mask = os.umask(0o077)
    try:
        await FolderTarget(str(root)).push(merged)
    finally:
        os.umask(mask)
    version = root / "support" / "v1_x"
    assert [path.stat().st_mode & 0o777 for path in (version.parent, version)] == [mode, mode]
    modes = {path.name: path.stat().st_mode & 0o777 for path in version.iterdir()}
    names = ("model.gguf", "version.json", "adapter_model.safetensors")
    assert modes == dict.fromkeys(names, mode & 0o666)


async def test_folder_target_publishes_versions_and_a_link(tmp_path: Path) -> None:
    merged = tmp_path / "v1.gguf"
    merged.write_bytes(b"weights")
    build = MergedModel(
        "support", "v1_x", merged, digest_of(b"weights"), {"adapter_config.json": b"{}"}
    )
    folder = FolderTarget(str(tmp_path / "out"))
    await folder.push(build)
    assert (await folder.verify(build)).passed
    await folder.switch("support", "v1_x", None)
    assert (tmp_path / "out/support/champion/model.gguf").read_bytes() == b"weights"
    serving = await folder.inspect("support")
    assert (serving.champion, serving.versions) == ("v1_x", {"v1_x": build.digest})
    (tmp_path / "out/support/v1_x/model.gguf").write_bytes(b"altered")
    assert not (await folder.verify(build)).passed


@pytest.mark.kafka
async def test_outcomes_from_a_real_broker_become_versions(stage: Stage, broker: str) -> None:
    producer = KafkaProducer(broker)
    await producer.start()
    consumer = KafkaConsumer(broker, "registry-test", (TRAINING_CHECKPOINTS, TRAINING_PROGRESS))
    reader = KafkaTopicReader(broker, (MODELS_VERSIONS, dead_letter_topic(TRAINING_CHECKPOINTS)))
    await consumer.start()
    await reader.start()
    await reader.read_new()  # skip records of other tests
    clock = SystemClock()
    publisher = OutboxPublisher(stage.registry_db.database, producer, clock, LOG)
    following = asyncio.create_task(
        consume(
            consumer.records(),
            stage.registry.handle,
            consumer.commit,
            producer,
            runtime_of(clock=clock, metrics=stage.metrics, health=stage.health),
        )
    )
    try:
        base = stage.registry_db.champion
        for _ in range(2):
            await publish(producer, TRAINING_CHECKPOINTS, "support", checkpoint("r1", base), "test")
        await publish(
            producer, TRAINING_CHECKPOINTS, "other", checkpoint("r2", base, model="other"), "test"
        )
        async with asyncio.timeout(30):
            while stage.registry_db.champion == base:
                await asyncio.sleep(0.1)
            await publisher.publish()
            topics: list[str] = []
            while len(topics) < 5:
                topics += [
                    record.topic
                    for record in await reader.read_new()
                    if record.key in (b"support", b"other")
                ]
                await asyncio.sleep(0.1)
    finally:
        consumer.stop_after_current()
        await following
        await consumer.stop()
        await reader.stop()
        await producer.stop()
    assert sorted(topics) == [MODELS_VERSIONS] * 4 + [dead_letter_topic(TRAINING_CHECKPOINTS)]
    assert (
        stage.registry_db.run(lambda session: len(session.scalars(select(VersionRow)).all())) == 2
    )
    assert stage.registry_db.run(lambda session: session.scalars(select(DeploymentRow)).all()) == []


@pytest.mark.kafka
async def test_live_feedback_from_a_broker_rolls_a_worse_version_back(
    stage: Stage, broker: str
) -> None:
    registry_db, name = stage.registry_db, f"live-{uuid4().hex[:8]}"
    base, users = registry_db.champion, [f"{name} user {number}" for number in range(30)]
    introduce(registry_db, users)
    introduce(registry_db, users, stage.registry.clock.now())  # gave feedback lately as well
    registry_db.run(lambda session: checkpoint_saved(session, checkpoint("r1", base), CONTEXT))
    worse = registry_db.champion
    producer = KafkaProducer(broker)
    live = KafkaConsumer(broker, name, (FEEDBACK_SCORED,))
    await producer.start()
    await live.start()
    listening = asyncio.create_task(
        consume_batches(
            live.batches(50), stage.registry.record_live_feedback, live.commit, runtime_of()
        )
    )
    try:
        await producer.send(FEEDBACK_SCORED, b"support", b"not an event", [])
        for version, reward in ((base, 0.8), (worse, -0.8)):
            for user in users:
                event = feedback(version, reward, user, name=f"{version} by {user}")
                await publish(producer, FEEDBACK_SCORED, "support", event, "test")
        async with asyncio.timeout(30):
            while registry_db.champion != base:
                await asyncio.sleep(0.1)
    finally:
        live.stop_after_current()
        await listening
        await live.stop()
        await producer.stop()
    assert registry_db.run(lambda session: history_of(session, "support", 1))[0].actor == "monitor"
    assert registry_db.enqueued[-1] == "ratchet.VersionRolledBack.v1"


async def test_deployer_without_targets_keeps_running(stage: Stage) -> None:
    deployer = Deployer(
        stage.registry_db.database,
        {"support": []},
        stage.merged_models,
        POLICY,
        stage.runtime,
    )
    running = asyncio.create_task(deployer.run())
    finished, _ = await asyncio.wait([running], timeout=0.1)
    assert not finished
    running.cancel()


async def test_only_the_deploying_replica_exports_serving_metrics(
    stage: Stage,
) -> None:
    def metrics() -> tuple[float | None, float | None, float | None]:
        read, labels = (
            stage.metrics.registry.get_sample_value,
            {"model": "support", "target": "fake"},
        )
        serves, served = (
            read("ratchet_registry_serves_champion", labels),
            read("ratchet_registry_served_number", labels),
        )
        return serves, served, read("ratchet_registry_champion_number", {"model": "support"})

    assert metrics() == (None, None, None)
    await stage.reconcile()
    await stage.registry.update_state_metrics("support")
    assert metrics() == (1, 0, 0)
    stage.target.answers_wrongly = {1}
    stage.promote("r1")
    await stage.reconcile()
    await stage.registry.update_state_metrics("support")
    assert metrics() == (0, 0, 1), "the previous version is still served"
    stage.target.answers_wrongly = set()
    await stage.reconcile()
    assert metrics() == (1, 1, 1)
    stage.target.away = True
    await stage.reconcile()
    assert metrics() == (0, 1, 1), "its state is unknown"
    stage.target.away = False
    await stage.deployer._leases["support"].release()
    other_replica = stage.deployer_of("other", Metrics("registry"))
    assert await other_replica.reconcile("support", stage.target)
    assert await stage.reconcile(), "another replica is responsible"
    assert metrics() == (None, None, 1)


async def test_rollbacks_are_counted_by_actor_from_zero(
    stage: Stage,
) -> None:
    def metrics(actor: str) -> float | None:
        return stage.metrics.registry.get_sample_value(
            "ratchet_registry_rollbacks_total", {"model": "support", "actor": actor}
        )

    assert (metrics("operator"), metrics("monitor")) == (0, 0)
    stage.promote("r1")
    async with DeployerRunning(stage), _client(stage) as client:
        assert await stage.deployer.wait_until_deployed(
            "support", stage.registry_db.aliases.move, 5
        )
        await client.post("/api/models/support/rollback", json={"reason": "worse in use"})
    assert (metrics("operator"), metrics("monitor")) == (1, 0)
