"""Canary trial with llama.cpp: the embedded host serves both versions, as the routing hint says."""

import asyncio
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import httpx

from ratchet.serving.api import build_app as build_host
from ratchet.serving.engine import EngineOptions
from ratchet.serving.host import ServingHost
from services.registry.handlers import HandlerContext, checkpoint_saved
from services.registry.versions.moves import promote_by_operator
from shared.config.canary import CanarySettings
from shared.identity import digest_of
from shared.storage.adapters import adapter_folder, write_adapter
from tests.registry.deploy.test_switch_under_load import LOG, World, _adapter
from tests.support.registry_events import NOW, DatabaseFixture, checkpoint
from tests.support.tiny_models import make

RULE = CanarySettings(share=0.5)


async def test_users_always_get_the_version_of_their_routing_hint(
    tmp_path: Path,
) -> None:
    make("llama", tmp_path)
    host = ServingHost(
        tmp_path / "serving", tmp_path, EngineOptions(context=128, slots=1, threads=1), 2, LOG
    )
    app = build_host(host)
    async with AsyncExitStack() as end:
        await end.enter_async_context(app.router.lifespan_context(app))
        serving = await end.enter_async_context(
            httpx.AsyncClient(transport=httpx.ASGITransport(app), timeout=60)
        )
        registry_db = DatabaseFixture(f"sqlite:///{tmp_path}/registry.db")
        end.callback(registry_db.close)
        world = World(registry_db, serving, tmp_path)
        end.push_async_callback(world.registry.aclose)
        base = registry_db.champion
        event = checkpoint("r1", base)
        event = event.model_copy(
            update={
                "adapter": write_adapter(
                    world.store, adapter_folder("support", "r1"), _adapter("r1"), digest_of(b"base")
                )
            }
        )
        await registry_db.database.run(
            lambda session: checkpoint_saved(session, event, HandlerContext(NOW, canary=RULE))
        )
        version = registry_db.aliases.challenger
        deploying = asyncio.create_task(world.deployer.run())
        try:
            await world.served()
            users: dict[str, set[str]] = {}
            async with asyncio.timeout(60):
                while host.catalogue.aliases.get("support:challenger") != f"support:{version}":
                    await asyncio.sleep(0.1)
                while len(users.get(str(version), ())) < 3:
                    user = f"user {sum(map(len, users.values()))}"
                    for _ in range(2):
                        hint = (
                            await world.registry.get(
                                "/api/models/support/route", params={"user": user}
                            )
                        ).json()
                        (served,) = hint["served"]
                        body = {
                            "model": served["name"],
                            "messages": [{"role": "user", "content": "Hi"}],
                            "max_tokens": 2,
                        }
                        answer = (
                            await serving.post("http://serving/v1/chat/completions", json=body)
                        ).json()
                        assert answer["model"] == f"support:{hint['version']}"
                        users.setdefault(hint["version"], set()).add(user)
            assert set(users) <= {base, version}
            assert not users.get(base, set()) & users[str(version)]
            await registry_db.database.run(
                lambda session: promote_by_operator(session, "support", None, "good", NOW)
            )
            world.deployer.wake()
            await world.served()
            async with asyncio.timeout(60):
                while "support:challenger" in host.catalogue.aliases:
                    await asyncio.sleep(0.1)
            assert host.catalogue.aliases["support"] == f"support:{version}"
        finally:
            deploying.cancel()
            with suppress(asyncio.CancelledError):
                await deploying
