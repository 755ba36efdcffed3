"""Routes of the pages. They load nothing from other hosts and need JavaScript only for live updates
and plots.
"""

import asyncio
from datetime import datetime
from functools import partial

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import RedirectResponse
from fastapi.staticfiles import StaticFiles

from services.registry.api.authorization import (
    Caller,
    Operator,
    require_operator,
    require_reader,
)
from services.registry.api.views import View
from services.registry.app import Registry
from services.registry.pages import sign_in
from services.registry.pages.audit import audit_page_view
from services.registry.pages.batches import batch_view
from services.registry.pages.errors import install_error_pages, page_route_class
from services.registry.pages.forms import MAX_REASON_LENGTH, REASON_NEEDED, form_of
from services.registry.pages.models import model_page_view, model_summary_view
from services.registry.pages.moves import (
    ChampionChanged,
    MoveKind,
    move_confirmation_view,
    move_result_view,
    require_champion,
)
from services.registry.pages.rendering import FOLDER, Templates
from services.registry.pages.training_controls import training_controls
from services.registry.pages.versions import (
    compare_view,
    lineage_page_view,
    manifest_of,
    run_page_view,
    version_names,
    version_page_view,
)
from services.registry.store.database import Session
from services.registry.store.tables import BatchRow
from services.registry.store.withdrawal_queries import withdrawn_feedback_ids
from services.registry.versions.moves import promote_by_operator, roll_back
from shared.events import VersionPromoted, VersionRolledBack
from shared.http.api_docs import api_docs_routes
from shared.storage.object_store import ObjectStore

WAIT_SECONDS = 3.0
"""Time for which a form waits for the deployment; after that the next page polls for it."""


def add_pages(app: FastAPI, registry: Registry, store: ObjectStore) -> None:
    """Add the pages to an application."""
    templates, database = Templates(registry.clock), registry.database
    route = page_route_class(templates)
    pages = APIRouter(
        include_in_schema=False, route_class=route, dependencies=[Depends(require_reader)]
    )
    forms = APIRouter(
        include_in_schema=False, route_class=route, dependencies=[Depends(require_operator)]
    )

    async def batch(model: str, row: BatchRow | None) -> View | None:
        """Read the contents of a batch, None for an unknown batch."""
        if row is None:
            return None
        withdrawn = await database.run(lambda session: withdrawn_feedback_ids(session, model))
        return await asyncio.to_thread(batch_view, store, manifest_of(row), withdrawn)

    @pages.get("/")
    async def index() -> Response:
        names = list(registry.models.files)
        models = await database.run(
            lambda session: [model_summary_view(session, name) for name in names]
        )
        return templates.page("models.html", models=models)

    @pages.get("/audit")
    async def show_audit(model: str | None = None, before: int | None = None) -> Response:
        view = await database.run(partial(audit_page_view, model=model or None, before=before))
        return templates.page("audit.html", audit=view, models=list(registry.models.files))

    @pages.get("/models/{model}")
    async def show_model(model: str, moved: int = 0) -> Response:
        registry.models.get(model)
        targets = registry.deployer.target_names(model)

        def views(session: Session) -> tuple[View, View | None]:
            return model_page_view(session, model), move_result_view(session, model, moved, targets)

        view, result = await database.run(views)
        return templates.page("model.html", model=view, move_result=result)

    @pages.get("/models/{model}/moves/{number}")
    async def show_move(model: str, number: int) -> Response:
        """Result of a move, polled by the model's page until the version is deployed."""
        registry.models.get(model)
        result = await database.run(
            lambda session: move_result_view(
                session, model, number, registry.deployer.target_names(model)
            )
        )
        if result is None:
            raise HTTPException(404, f"{model} has no move {number}")
        return templates.page("_move_result.html", model={"model": model}, move_result=result)

    @pages.get("/models/{model}/versions/{version}")
    async def show_version(model: str, version: str) -> Response:
        registry.models.get(model)
        view = await database.run(lambda session: version_page_view(session, model, version))
        return templates.page("version.html", shown=view, data=await batch(model, view["batch"]))

    @pages.get("/models/{model}/versions/{version}/lineage")
    async def show_lineage(model: str, version: str) -> Response:
        registry.models.get(model)
        view = await database.run(lambda session: lineage_page_view(session, model, version))
        return templates.page(
            "lineage.html", lineage=view, data=await batch(model, view["steps"][0]["batch"])
        )

    @pages.get("/models/{model}/runs/{run_id}")
    async def show_run(model: str, run_id: str) -> Response:
        registry.models.get(model)
        view = await database.run(lambda session: run_page_view(session, model, run_id))
        return templates.page("run.html", shown=view, data=await batch(model, view["batch"]))

    @pages.get("/models/{model}/runs/{run_id}/progress")
    async def show_progress(model: str, run_id: str) -> Response:
        """Progress of a run, polled by its page, which reloads when the run has ended."""
        registry.models.get(model)
        view = await database.run(lambda session: run_page_view(session, model, run_id))
        return templates.page(
            "_progress.html", headers={"HX-Refresh": "true"} if view["ended"] else None, shown=view
        )

    @pages.get("/models/{model}/compare")
    async def compare(model: str, first: str | None = None, second: str | None = None) -> Response:
        registry.models.get(model)

        def views(session: Session) -> tuple[list[str], View | None]:
            return version_names(session, model), compare_view(
                session, model, first, second
            ) if first and second else None

        names, compared = await database.run(views)
        return templates.page("compare.html", model=model, names=names, compared=compared)

    async def confirmation(
        model: str,
        kind: MoveKind,
        to: str | None,
        reason: str = "",
        problem: str = "",
        status: int = 200,
    ) -> Response:
        registry.models.get(model)
        targets = registry.deployer.target_names(model)
        choice = await database.run(
            lambda session: move_confirmation_view(session, model, kind, to, targets)
        )
        return templates.page(
            "move.html",
            status,
            choice=choice,
            kind=kind,
            reason=reason,
            problem=problem,
            max_length=MAX_REASON_LENGTH,
        )

    @forms.get("/models/{model}/rollback")
    async def confirm_rollback(model: str, to: str | None = None) -> Response:
        return await confirmation(model, "roll_back", to)

    @forms.get("/models/{model}/promote")
    async def confirm_promotion(model: str, to: str | None = None) -> Response:
        return await confirmation(model, "promote", to)

    async def move(model: str, kind: MoveKind, request: Request, operator: Caller) -> Response:
        """Move the champion as confirmed, unless it has changed since the confirmation page."""
        registry.models.get(model)
        form = await form_of(request)
        to, seen, reason = (
            form.get("to", ""),
            form.get("champion", ""),
            form.get("reason", "").strip(),
        )
        if not to or not seen:
            raise HTTPException(400, "the form has no version; reload the page")
        if not reason or len(reason) > MAX_REASON_LENGTH:
            return await confirmation(model, kind, to, reason, REASON_NEEDED, 422)

        def decide(
            session: Session, now: datetime
        ) -> tuple[VersionPromoted | VersionRolledBack, int]:
            require_champion(session, model, seen)
            if kind == "promote":
                return promote_by_operator(session, model, to, reason, now)
            return roll_back(session, model, to, reason, "operator", now)

        try:
            _, number = await registry.decide(decide, operator.name)
        except ChampionChanged as error:
            request.state.problem = str(error)
            return await confirmation(model, kind, to, reason, str(error), 409)
        await registry.deployer.wait_until_deployed(model, number, WAIT_SECONDS)
        return RedirectResponse(f"/models/{model}?moved={number}", 303)

    @forms.post("/models/{model}/rollback")
    async def rollback(model: str, request: Request, operator: Operator) -> Response:
        return await move(model, "roll_back", request, operator)

    @forms.post("/models/{model}/promote")
    async def promote(model: str, request: Request, operator: Operator) -> Response:
        return await move(model, "promote", request, operator)

    app.mount("/static", StaticFiles(directory=FOLDER / "static"))
    app.include_router(sign_in.routes(templates))
    app.router.routes.extend(api_docs_routes())
    app.include_router(pages)
    app.include_router(forms)
    app.include_router(training_controls(registry, templates))
    install_error_pages(app, templates)
