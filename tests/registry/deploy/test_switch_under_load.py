"""Availability during promotions and rollbacks: the registry's deployer and the embedded host with
llama.cpp, on a tiny model, under constant requests.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import httpx
import torch
from safetensors.torch import save

from ratchet.serving.api import build_app as build_host
from ratchet.serving.engine import EngineOptions
from ratchet.serving.host import ServingHost
from services.registry.api import routes as api
from services.registry.app import Registry
from services.registry.deploy.deployer import Deployer
from services.registry.deploy.deployment_runner import DeployPolicy
from services.registry.deploy.merged_models import MergedModels
from services.registry.deploy.targets.llamacpp import LlamaCppTarget
from services.registry.handlers import checkpoint_saved
from shared.clock import SystemClock
from shared.config.models import Models
from shared.identity import digest_of
from shared.logs import configure
from shared.observability.health import Health
from shared.observability.metrics import Metrics
from shared.storage.adapters import CONFIG, WEIGHTS, adapter_folder, write_adapter
from shared.storage.object_store import MemoryStore
from tests.support.credentials import OPERATOR, TOKENS
from tests.support.registry_events import CONTEXT, MODEL, DatabaseFixture, checkpoint
from tests.support.runtime import runtime_of
from tests.support.tiny_models import make

LOG = configure("test", "error", "text")
CLIENTS = 3


class World:
    """A registry that deploys to a host, and clients that send requests."""

    def __init__(
        self, registry_db: DatabaseFixture, serving: httpx.AsyncClient, folder: Path
    ) -> None:
        self.registry_db = registry_db
        self.serving = serving
        self.store = MemoryStore()
        self.answers: list[tuple[int, str]] = []
        base = MODEL.base.model_copy(update={"serving": "model.gguf"})
        models = Models({"support": MODEL.model_copy(update={"base": base})}, folder)
        merged_models = MergedModels(
            registry_db.database, self.store, models, folder, folder / "merged"
        )
        clock, metrics = SystemClock(), Metrics("registry")
        targets = {"support": [LlamaCppTarget("http://127.0.0.1", serving)]}
        policy, runtime = (
            DeployPolicy(keep_versions=1),
            runtime_of("registry", clock, metrics, log=LOG),
        )
        self.deployer = Deployer(registry_db.database, targets, merged_models, policy, runtime)
        registry = Registry(registry_db.database, models, self.deployer, runtime)
        transport = httpx.ASGITransport(
            api.build(registry, Health(clock), metrics.registry, lambda: TOKENS)
        )
        self.registry = httpx.AsyncClient(
            transport=transport, base_url="http://registry", timeout=60, headers=OPERATOR
        )

    async def served(self) -> None:
        """Wait until the champion is served."""
        assert await self.deployer.wait_until_deployed("support", self.registry_db.aliases.move, 60)

    async def promote(self, run: str) -> str:
        folder = adapter_folder("support", run)
        event = checkpoint(run, self.registry_db.champion)
        event = event.model_copy(
            update={"adapter": write_adapter(self.store, folder, _adapter(run), digest_of(b"base"))}
        )
        await self.registry_db.database.run(
            lambda session: checkpoint_saved(session, event, CONTEXT)
        )
        self.deployer.wake()
        await self.served()
        return self.registry_db.champion

    async def roll_back(self, to: str | None = None) -> None:
        answer = await self.registry.post(
            "/api/models/support/rollback", json={"to": to, "reason": "worse in use"}
        )
        assert answer.json()["deployed"] is True, answer.text

    @asynccontextmanager
    async def under_load(self) -> AsyncIterator[None]:
        """Send requests from several clients during the body."""
        running = True

        async def send_requests() -> None:
            body = {
                "model": "support",
                "messages": [{"role": "user", "content": "Hi"}],
                "max_tokens": 2,
            }
            while running:
                answer = await self.serving.post("http://serving/v1/chat/completions", json=body)
                self.answers.append((answer.status_code, answer.json().get("model", answer.text)))

        clients = [asyncio.create_task(send_requests()) for _ in range(CLIENTS)]
        try:
            yield
        finally:
            running = False
            await asyncio.gather(*clients)


def _adapter(run: str) -> dict[str, bytes]:
    """Return a small change to every q projection, enough for a different file."""
    generator = torch.Generator().manual_seed(int(run[1:]))
    weights = {}
    for layer in range(2):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        weights[f"{name}.lora_A.weight"] = torch.randn(4, 64, generator=generator) * 0.1
        weights[f"{name}.lora_B.weight"] = torch.randn(64, 4, generator=generator) * 0.1
    config = {"peft_type": "LORA", "bias": "none", "r": 4, "lora_alpha": 8}
    return {CONFIG: json.dumps(config).encode(), WEIGHTS: save(weights)}


async def test_no_request_fails_during_promotions_and_rollbacks(tmp_path: Path) -> None:
    """The last rollback is to a version that is no longer in memory."""
    make("llama", tmp_path)
    registry_db = DatabaseFixture(f"sqlite:///{tmp_path}/registry.db")
    host = ServingHost(
        tmp_path / "serving", tmp_path, EngineOptions(context=256, slots=1, threads=1), 2, LOG
    )
    app = build_host(host)
    async with AsyncExitStack() as end:
        end.callback(registry_db.close)
        await end.enter_async_context(app.router.lifespan_context(app))
        serving = await end.enter_async_context(
            httpx.AsyncClient(transport=httpx.ASGITransport(app), timeout=60)
        )
        world = World(registry_db, serving, tmp_path)
        await end.enter_async_context(world.registry)
        deploying = asyncio.create_task(world.deployer.run())
        base = registry_db.champion
        try:
            await world.served()
            async with world.under_load():
                first = await world.promote("r1")
                second = await world.promote("r2")
                for _ in range(3):
                    await world.roll_back()
                await world.roll_back(base)
                await asyncio.sleep(0.2)
        finally:
            deploying.cancel()
            with suppress(asyncio.CancelledError):
                await deploying
    assert {status for status, _ in world.answers} == {200}, [
        answer for answer in world.answers if answer[0] != 200
    ]
    assert {name for _, name in world.answers} == {
        f"support:{version}" for version in (base, first, second)
    }
    assert world.answers[-1][1] == f"support:{base}"
