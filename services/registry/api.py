"""The registry over HTTP, for programs."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Annotated

from fastapi import FastAPI, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from services.registry import problems
from services.registry.app import Registry
from services.registry.holds import hold, release
from services.registry.lifecycle import Alias
from services.registry.moves import UnknownVersion, promote_by_hand, require_version, roll_back
from services.registry.store.queries import aliases_of, versions_named
from services.registry.store.tables import Run, Version
from services.registry.views import View, history_view, lineage_view, model_view, run_view, version_view, versions_view, withdrawals_view
from shared.health import Health

DEPLOYED_WITHIN_SECONDS = 10.0

Reason = Annotated[str, Field(min_length=1, max_length=2000, description="why; it is kept in the history")]


class PromoteRequest(BaseModel):
    """Make `version` champion, or the challenger where none is named."""

    model_config = ConfigDict(extra="forbid")

    version: str | None = None
    reason: Reason


class RollbackRequest(BaseModel):
    """Go back (or forward again) to `to`, or to `previous` where none is named."""

    model_config = ConfigDict(extra="forbid")

    to: str | None = None
    reason: Reason


class HoldRequest(BaseModel):
    """Put a model on hold, or lift its hold."""

    model_config = ConfigDict(extra="forbid")

    reason: Reason


def build(registry: Registry, health: Health, metrics: CollectorRegistry) -> FastAPI:
    """The application around a registry."""
    app = FastAPI(title="Ratchet registry", summary="Versions of models, where each came from, and which one is served")
    problems.install(app)
    database, models = registry.database, registry.models

    @app.get("/api/models")
    async def list_models() -> View:
        return await database.run(lambda session: _items(model_view(session, name) for name in models.files))

    @app.get("/api/models/{model}")
    async def get_model(model: str) -> View:
        models.get(model)
        return await database.run(partial(model_view, model=model))

    @app.get("/api/models/{model}/versions")
    async def list_versions(model: str) -> View:
        models.get(model)
        return await database.run(lambda session: _items(versions_view(session, model)))

    @app.get("/api/models/{model}/versions/{version}")
    async def get_version(model: str, version: str) -> View:
        models.get(model)
        return await database.run(lambda session: version_view(session, require_version(session, model, version)))

    @app.get("/api/models/{model}/withdrawals")
    async def list_withdrawals(model: str) -> View:
        models.get(model)
        return await database.run(lambda session: _items(withdrawals_view(session, model)))

    @app.get("/api/models/{model}/aliases/{alias}")
    async def get_alias(model: str, alias: Alias) -> View:
        models.get(model)
        return await database.run(lambda session: version_view(session, _aliased(session, model, alias)))

    @app.get("/api/models/{model}/history")
    async def get_history(model: str) -> View:
        models.get(model)
        return await database.run(lambda session: _items(history_view(session, model)))

    @app.get("/api/versions/{version_id}/lineage")
    async def get_lineage(version_id: str) -> View:
        return await database.run(lambda session: lineage_view(session, _identified(session, version_id)))

    @app.get("/api/runs/{run_id}")
    async def get_run(run_id: str) -> View:
        return await database.run(lambda session: run_view(session, _run(session, run_id)))

    @app.post("/api/models/{model}/promote")
    async def post_promote(model: str, request: PromoteRequest) -> View:
        models.get(model)
        began = registry.clock.monotonic()
        event, move = await registry.decide(lambda session, now: promote_by_hand(session, model, request.version, request.reason, now))
        return await _moved(registry, model, event.previous, event.version, move, began)

    @app.post("/api/models/{model}/rollback")
    async def post_rollback(model: str, request: RollbackRequest) -> View:
        """Answers when the old version does, or after ten seconds; `deployed` says which."""
        models.get(model)
        began = registry.clock.monotonic()
        event, move = await registry.decide(lambda session, now: roll_back(session, model, request.to, request.reason, "operator", now))
        return await _moved(registry, model, event.from_version, event.version, move, began)

    @app.post("/api/models/{model}/hold")
    async def post_hold(model: str, request: HoldRequest) -> View:
        """From now on nothing but a person moves the champion; what the gate promotes waits as challenger."""
        return await _held(registry, model, hold, request.reason)

    @app.post("/api/models/{model}/release")
    async def post_release(model: str, request: HoldRequest) -> View:
        """Lift a hold: the gate's verdicts and the monitor move the champion again."""
        return await _held(registry, model, release, request.reason)

    @app.get("/healthz", response_class=PlainTextResponse)
    async def healthz() -> Response:
        return _state(health.is_live)

    @app.get("/readyz", response_class=PlainTextResponse)
    async def readyz() -> Response:
        return _state(health.is_ready)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def get_metrics() -> Response:
        return Response(generate_latest(metrics), media_type=CONTENT_TYPE_LATEST)

    return app


def _items(views: Iterable[View]) -> View:
    """A list as an object, which can say more of itself one day without breaking those who read it."""
    return {"items": list(views)}


async def _moved(registry: Registry, model: str, origin: str | None, to: str, move: int, began: float) -> View:
    deployed = await registry.deployer.deployed(model, move, DEPLOYED_WITHIN_SECONDS)
    return {"from": origin, "to": to, "deployed": deployed, "seconds": round(registry.clock.monotonic() - began, 3)}


async def _held(registry: Registry, model: str, change: Callable[..., bool], reason: str) -> View:
    """Do it, and the model as it is then: doing it twice is no error."""
    registry.models.get(model)
    now = registry.clock.now()
    await registry.database.run(partial(change, model=model, actor="operator", reason=reason, now=now))
    await registry.show_state(model)
    return await registry.database.run(partial(model_view, model=model))


def _aliased(session: Session, model: str, alias: Alias) -> Version:
    row = aliases_of(session, model)
    name = getattr(row, alias) if row else None
    if name is None:
        raise UnknownVersion(f"{model} has no {alias} at present; GET /api/models/{model} shows its aliases")
    return require_version(session, model, name)


def _identified(session: Session, version_id: str) -> Version:
    """The version called `<model>:<version>`, or by its name alone where only one model has such a version."""
    model, colon, name = version_id.partition(":")
    if colon:
        return require_version(session, model, name)
    found = versions_named(session, version_id)
    if not found:
        raise UnknownVersion(f"no model has a version {version_id!r}; GET /api/models lists the models")
    if len(found) > 1:
        raise problems.Ambiguous(f"several models have a version {version_id!r}; ask for {found[0].model}:{version_id} or another")
    return found[0]


def _run(session: Session, run_id: str) -> Run:
    run = session.get(Run, run_id)
    if run is None:
        raise problems.UnknownRun(f"no run {run_id!r} has been heard of; a version names its own in run_id")
    return run


def _state(good: bool) -> Response:
    return PlainTextResponse("200 OK\n") if good else PlainTextResponse("503 Service Unavailable\n", 503)
