"""Retention of adapters: the rule keeps what is referred to; a removal is recorded first, blocks
promotion, and is finished after interruptions.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console
from sqlalchemy import select
from typer.testing import CliRunner

from ratchet import console
from ratchet.cli import commands
from ratchet.local_stack.ports import free_port
from services.registry.api import retention as retention_api
from services.registry.deploy.targets.target import TargetUnavailable
from services.registry.handlers import checkpoint_saved, training_progressed, training_rolled_back
from services.registry.lifecycle import version_name
from services.registry.retention.pruner import Pruner
from services.registry.retention.rule import (
    InUse,
    RetentionDecision,
    StoredAdapter,
    decide_removals,
)
from services.registry.store.tables import (
    AdapterRemovalDoneRow,
    AdapterRemovalRow,
    AuditRow,
    VersionRow,
)
from services.registry.versions.moves import AdapterRemoved, promote_by_operator, roll_back
from shared.clock import ManualClock
from shared.config.model_file import RetentionSettings
from shared.config.models import Models
from shared.errors import ObjectNotFound, StorageUnavailable
from shared.events import Artefact
from shared.identity import digest_of
from shared.storage.adapters import (
    CONFIG,
    MODEL_CARD,
    WEIGHTS,
    adapter_folder,
    read_adapter,
    remove_adapter,
    write_adapter,
)
from shared.storage.object_store import MemoryStore
from tests.registry.deploy.test_deployment import LOG, Stage
from tests.registry.fake_target import FakeTarget
from tests.support.credentials import OPERATOR
from tests.support.registry_events import (
    CONTEXT,
    MODEL,
    NOW,
    DatabaseFixture,
    checkpoint,
    progress,
    rejection,
)
from tests.support.runtime import runtime_of

STALE = "v9_20200101_000000"
"""A baseline that is not the champion: a candidate evaluated against it becomes challenger."""

RULE = RetentionSettings(versions=1, days=30)
DAY = 24 * 3600.0


# The rule as a pure function.

names = [version_name(number, NOW) for number in range(1, 8)]
some = st.sets(st.sampled_from(names))
ages = st.one_of(st.none(), st.integers(0, 60))
rules = st.builds(RetentionSettings, versions=st.integers(1, 9), days=st.integers(0, 60))


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[StoredAdapter], InUse]:
    stored = []
    for number in range(draw(st.integers(0, 12))):
        version = names[number] if number < len(names) and draw(st.booleans()) else None
        age = draw(ages)
        stored.append(
            StoredAdapter(
                f"r{number}",
                version,
                f"adapters/r{number}/manifest.json",
                None if age is None else NOW - timedelta(days=age),
            )
        )
    aliases = {
        alias: draw(st.sampled_from(names))
        for alias in draw(st.sets(st.sampled_from(["champion", "previous", "challenger"])))
    }
    return stored, InUse(aliases, {"llamacpp": draw(some), "folder": draw(some)}, draw(some))


def _removable(decisions: Sequence[RetentionDecision]) -> set[str]:
    return {each.stored.run_id for each in decisions if each.removable}


@given(situations(), rules)
def test_referenced_adapters_are_never_removable(
    situation: tuple[list[StoredAdapter], InUse], rule: RetentionSettings
) -> None:
    stored, in_use = situation
    referred = {*in_use.aliases.values(), *in_use.champions}.union(*in_use.served.values())
    for each in decide_removals(stored, in_use, rule, NOW):
        if each.stored.version in referred or each.stored.ended is None:
            assert not each.removable


@given(situations(), rules)
def test_unreferenced_adapters_are_removable_when_old(
    situation: tuple[list[StoredAdapter], InUse], rule: RetentionSettings
) -> None:
    stored, _ = situation
    unused = InUse({}, {}, ())
    numbered = [each.run_id for each in stored if each.version is not None]
    newest = numbered[-rule.versions :]
    old = {
        each.run_id
        for each in stored
        if each.ended is not None and (NOW - each.ended).days >= rule.days
    }
    assert _removable(decide_removals(stored, unused, rule, NOW)) == old - set(newest)


@given(situations(), rules, rules)
def test_wider_rule_removes_no_more(
    situation: tuple[list[StoredAdapter], InUse],
    first: RetentionSettings,
    second: RetentionSettings,
) -> None:
    wider = RetentionSettings(
        versions=max(first.versions, second.versions), days=max(first.days, second.days)
    )
    assert _removable(decide_removals(*situation, wider, NOW)) <= _removable(
        decide_removals(*situation, first, NOW)
    )


@given(situations())
def test_without_a_rule_everything_is_kept_with_a_reason(
    situation: tuple[list[StoredAdapter], InUse],
) -> None:
    for each in decide_removals(*situation, None, NOW):
        assert "the model file has no retention" in each.reasons


# With a database, a store and a target.


class AdapterStage:
    """A model whose runs leave adapters in a store, and a pruner."""

    def __init__(
        self, registry_db: DatabaseFixture, rule: RetentionSettings | None, folder: Path
    ) -> None:
        self.stage = Stage(registry_db, folder)
        self.registry_db = registry_db
        self.store = MemoryStore()
        self.clock = ManualClock(NOW)
        models = Models({"support": MODEL.model_copy(update={"retention": rule})}, folder)
        self.pruner = self.pruner_of(models)
        self.stage.app.include_router(retention_api.routes(models, self.pruner))

    def pruner_of(self, models: Models, replica: str = "one", every: float = 3600.0) -> Pruner:
        stage = self.stage
        targets = {"support": [stage.target]}
        return Pruner(
            self.registry_db.database,
            self.store,
            models,
            targets,
            stage.merged_models,
            runtime_of("registry", self.clock, stage.metrics, log=LOG),
            replica,
            interval_seconds=every,
        )

    def _left(self, run: str) -> Artefact:
        folder = adapter_folder("support", run)
        self.store.put(f"{folder}/{MODEL_CARD}", b"# card")
        return write_adapter(
            self.store, folder, {CONFIG: b"{}", WEIGHTS: run.encode()}, digest_of(b"base")
        )

    def saved(self, run: str, baseline: str) -> str:
        """Save a candidate evaluated against `baseline` and return its version."""
        event = checkpoint(run, baseline).model_copy(update={"adapter": self._left(run)})
        self.registry_db.run(lambda session: checkpoint_saved(session, event, CONTEXT))
        return self.registry_db.run(
            lambda session: session.scalars(
                select(VersionRow.name).where(VersionRow.run_id == run)
            ).one()
        )

    def promoted(self, run: str) -> str:
        return self.saved(run, self.registry_db.champion)

    def never_served(self, run: str) -> str:
        """Return a version that was challenger and rejected at its reevaluation."""
        version = self.saved(run, STALE)
        self.registry_db.run(
            lambda session: training_rolled_back(
                session, rejection(run, self.registry_db.champion, 2), CONTEXT
            )
        )
        return version

    def rejected(self, run: str) -> None:
        self._left(run)
        self.registry_db.run(
            lambda session: training_rolled_back(
                session, rejection(run, self.registry_db.champion), CONTEXT
            )
        )

    def is_there(self, run: str) -> bool:
        runs = {key.split("/")[2] for key in self.store.list_keys("adapters/support")}
        return run in runs

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(self.stage.app),
            base_url="http://registry",
            headers=OPERATOR,
        )

    async def get(self, path: str) -> Any:
        async with self.client() as client:
            return (await client.get(path)).json()


@pytest.fixture
def adapters(registry_db: DatabaseFixture, tmp_path: Path) -> AdapterStage:
    return AdapterStage(registry_db, RULE, tmp_path)


async def test_old_candidates_are_removed_and_champions_kept(
    adapters: AdapterStage,
) -> None:
    first = adapters.promoted("r1")
    adapters.rejected("r2")
    adapters.promoted("r3")
    adapters.promoted("r4")
    adapters.clock.advance(29 * DAY)
    await adapters.pruner.prune("support")
    assert adapters.is_there("r2"), "not old enough"
    adapters.clock.advance(2 * DAY)
    await adapters.pruner.prune("support")
    assert [run for run in ("r1", "r2", "r3", "r4") if adapters.is_there(run)] == ["r1", "r3", "r4"]
    assert not adapters.store.list_keys(adapter_folder("support", "r2"))
    adapters.registry_db.run(
        lambda session: roll_back(
            session, "support", first, "all newer ones are worse", "operator", NOW
        )
    )
    assert (await adapters.get("/api/runs/r2"))["removed_at"] is not None


async def test_version_without_adapter_is_refused_and_marked(
    adapters: AdapterStage,
) -> None:
    removed = adapters.never_served("r1")
    champion = adapters.promoted("r2")
    adapters.clock.advance(31 * DAY)
    await adapters.pruner.prune("support")
    assert not adapters.is_there("r1")
    for move in ("rollback", "promote"):
        async with adapters.client() as client:
            body = {"to" if move == "rollback" else "version": removed, "reason": "let us try"}
            answer = await client.post(f"/api/models/support/{move}", json=body)
        assert (answer.status_code, answer.json()["title"]) == (409, "adapter removed")
        assert (
            "was removed on 2026-08-01 (never champion, older than 30 days"
            in answer.json()["detail"]
        )
    assert adapters.registry_db.champion == champion
    versions = {
        row["version"]: row for row in (await adapters.get("/api/models/support/versions"))["items"]
    }
    assert versions[removed]["removed_at"] is not None
    assert versions[removed]["removed_reason"].startswith("never champion")
    assert versions[champion]["removed_at"] is None
    newest = (await adapters.get("/api/models/support/history"))["items"][0]
    assert (newest["actor"], newest["action"], newest["evidence"]) == (
        "retention",
        "remove",
        {"versions": [removed], "runs": []},
    )
    async with adapters.client() as client:
        assert "adapter removed" in (await client.get("/models/support")).text
        assert (
            'adapters_removed_total{kind="version",model="support"} 1.0'
            in (await client.get("/metrics")).text
        )


async def test_adapters_that_may_be_needed_are_kept(adapters: AdapterStage) -> None:
    """Those of a challenger, of a version that waits for its reevaluation while another is
    challenger, and of a run in progress.
    """
    adapters.saved("r1", STALE)
    adapters.saved("r2", STALE)
    adapters.registry_db.run(
        partial(training_progressed, event=progress("r3", 1, 0.5), context=CONTEXT)
    )
    adapters._left("r3")
    adapters.promoted("r4")
    adapters.clock.advance(31 * DAY)
    await adapters.pruner.prune("support")
    assert all(adapters.is_there(run) for run in ("r1", "r2", "r3", "r4"))


async def test_served_versions_are_kept_and_an_outage_blocks_pruning(
    adapters: AdapterStage,
) -> None:
    served = adapters.never_served("r1")
    adapters.promoted("r2")
    adapters.clock.advance(31 * DAY)
    target: FakeTarget = adapters.stage.target
    target.champion = served
    await adapters.pruner.prune("support")
    assert adapters.is_there("r1")
    target.champion, target.away = None, True
    with pytest.raises(TargetUnavailable, match="nobody is there"):
        await adapters.pruner.prune("support")
    assert adapters.is_there("r1")
    target.away = False
    await adapters.pruner.prune("support")
    assert not adapters.is_there("r1")


async def test_without_a_rule_nothing_is_removed(
    registry_db: DatabaseFixture, tmp_path: Path
) -> None:
    adapters = AdapterStage(registry_db, None, tmp_path)
    adapters.rejected("r1")
    adapters.clock.advance(9999 * DAY)
    await adapters.pruner.prune("support")
    assert adapters.is_there("r1")
    assert (await adapters.get("/api/models/support/retention"))["rule"] is None


async def test_plan_is_readable_and_removes_nothing(adapters: AdapterStage) -> None:
    adapters.rejected("r1")
    champion = adapters.promoted("r2")
    adapters.clock.advance(31 * DAY)
    answer = await adapters.get("/api/models/support/retention")
    assert answer["rule"] == {"versions": 1, "days": 30.0}
    rows = {
        row["run_id"]: (row["version"], row["goes"], row["stays_because"])
        for row in answer["items"]
    }
    reasons = ["is champion", "the history names it as champion", "one of the 1 newest versions"]
    assert rows == {"r1": (None, True, []), "r2": (champion, False, reasons)}
    assert adapters.is_there("r1")


async def test_cli_shows_planned_and_completed_removals(
    adapters: AdapterStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    adapters.never_served("r1")
    adapters.promoted("r2")
    adapters.clock.advance(31 * DAY)
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(adapters.stage.app, port=port, log_config=None))
    serving = asyncio.create_task(server.serve())

    async def output_of(command: str) -> str:
        arguments = [command, "support", "--registry", f"http://127.0.0.1:{port}"]
        result = await asyncio.to_thread(CliRunner().invoke, commands.app, arguments)
        assert result.exit_code == 0, result.output
        return result.stdout

    try:
        async with asyncio.timeout(20):
            while not server.started:
                await asyncio.sleep(0.05)
        monkeypatch.setattr(console, "out", Console(width=200))
        before = await output_of("retention")
        assert "1 newest versions, 30 days" in before
        assert [line.split("│")[-2].strip() for line in before.splitlines() if "r1" in line] == [
            "will be removed"
        ]
        assert "is champion; the history names it as champion" in before
        await adapters.pruner.prune("support")
        assert "r1" not in await output_of("retention")
        assert "2026-08-01T12:00:00" in await output_of("versions")
    finally:
        server.should_exit = True
        await serving


async def test_interrupted_removal_is_finished_and_blocks_promotion(
    adapters: AdapterStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed = adapters.never_served("r1")
    adapters.promoted("r2")
    adapters.clock.advance(31 * DAY)

    def fails(key: str) -> None:
        raise StorageUnavailable("the store is unavailable")

    with monkeypatch.context() as patch:
        patch.setattr(adapters.store, "delete", fails)
        with pytest.raises(StorageUnavailable):
            await adapters.pruner.prune("support")
    assert adapters.is_there("r1")
    with pytest.raises(AdapterRemoved):
        adapters.registry_db.run(
            lambda session: roll_back(session, "support", removed, "let us try", "operator", NOW)
        )
    with pytest.raises(AdapterRemoved):
        adapters.registry_db.run(
            lambda session: promote_by_operator(session, "support", removed, "let us try", NOW)
        )
    await adapters.pruner.prune("support")
    assert not adapters.is_there("r1")
    await adapters.pruner.prune("support")
    removals = adapters.registry_db.run(
        lambda session: session.scalars(select(AdapterRemovalDoneRow)).all()
    )
    assert [(row.run_id, row.objects) for row in removals] == [("r1", 4)]
    entries = adapters.registry_db.run(
        lambda session: session.scalars(select(AuditRow).where(AuditRow.action == "remove")).all()
    )
    assert len(entries) == 1


async def test_pruner_runs_repeatedly_and_retries(
    adapters: AdapterStage,
) -> None:
    models = Models({"support": MODEL.model_copy(update={"retention": RULE})}, Path())
    pruning = asyncio.create_task(adapters.pruner_of(models, every=0.05).run())
    adapters.stage.target.away = True
    adapters.rejected("r1")
    adapters.clock.advance(31 * DAY)
    await asyncio.sleep(0.2)
    assert adapters.is_there("r1")
    adapters.stage.target.away = False
    async with asyncio.timeout(20):
        while adapters.is_there("r1"):
            await asyncio.sleep(0.05)
    pruning.cancel()
    with suppress(asyncio.CancelledError):
        await pruning
    other_pruner = adapters.pruner_of(models, "other")
    adapters.rejected("r2")
    await other_pruner.prune("support")
    assert not adapters.is_there("r2"), "the lease was released"


async def test_one_replica_at_a_time_prunes(adapters: AdapterStage) -> None:
    models = Models({"support": MODEL.model_copy(update={"retention": RULE})}, Path())
    other_pruner = adapters.pruner_of(models, "other")
    await adapters.pruner.prune("support")
    adapters.rejected("r1")
    adapters.clock.advance(31 * DAY)
    await other_pruner.prune("support")
    assert adapters.is_there("r1"), "the first has the lease"
    await adapters.pruner.prune("support")
    assert not adapters.is_there("r1")


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    moves=st.lists(
        st.sampled_from(["promoted", "never served", "challenger", "rejected", "back", "by hand"]),
        min_size=3,
        max_size=12,
    )
)
async def test_every_former_champion_can_be_rolled_back_to(
    new_database: Callable[[], str], tmp_path: Path, moves: list[str]
) -> None:
    """After any sequence of moves and pruning with the strictest rule, every former champion is
    complete. All other adapters are removed, except those of the challenger, the newest version and
    versions that wait for their reevaluation.
    """
    registry_db = DatabaseFixture(new_database())
    adapters = AdapterStage(registry_db, RetentionSettings(versions=1, days=0), tmp_path)
    champions, waiting = {registry_db.champion}, set()
    for number, kind in enumerate(moves):
        run = f"r{number}"
        if kind == "promoted":
            adapters.promoted(run)
        elif kind == "never served":
            adapters.never_served(run)
        elif kind == "challenger":
            waiting.add(adapters.saved(run, STALE))
        elif kind == "rejected":
            adapters.rejected(run)
        elif kind == "back" and registry_db.aliases.previous:
            registry_db.run(
                lambda session: roll_back(session, "support", None, "worse", "operator", NOW)
            )
        elif kind == "by hand" and registry_db.aliases.challenger:
            registry_db.run(
                lambda session: promote_by_operator(session, "support", None, "better", NOW)
            )
        champions.add(registry_db.champion)
    adapters.clock.advance(31 * DAY)
    await adapters.pruner.prune("support")
    versions = registry_db.run(
        lambda session: session.scalars(select(VersionRow).order_by(VersionRow.number)).all()
    )
    for version in versions:
        if version.adapter_uri is None or version.adapter_digest is None:
            continue
        artefact = Artefact(uri=version.adapter_uri, digest=version.adapter_digest)
        if version.name in champions | waiting or version is versions[-1]:
            assert (
                read_adapter(adapters.store, artefact).files[WEIGHTS]
                == str(version.run_id).encode()
            )
        else:
            with pytest.raises(ObjectNotFound):
                read_adapter(adapters.store, artefact)
    removed = registry_db.run(lambda session: session.scalars(select(AdapterRemovalRow)).all())
    assert not champions & {row.version for row in removed}
    assert not any(
        adapters.is_there(f"r{number}") for number, kind in enumerate(moves) if kind == "rejected"
    )
    registry_db.close()


def test_remove_adapter_deletes_its_files_and_is_idempotent() -> None:
    store = MemoryStore()
    artefact = write_adapter(
        store, "adapters/m/r", {CONFIG: b"{}", WEIGHTS: b"w", "more.json": b"1"}, digest_of(b"base")
    )
    store.put("adapters/m/r/not ours", b"x")
    store.put("adapters/m/r2/manifest.json", b"{}")
    assert remove_adapter(store, artefact.uri) == 4
    assert sorted(store.objects) == ["adapters/m/r/not ours", "adapters/m/r2/manifest.json"]
    assert remove_adapter(store, artefact.uri) == 0
