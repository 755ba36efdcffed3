"""Pages on which an operator pauses or resumes the training of a model."""

from typing import Literal

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse

from services.registry.api.authorization import Caller, Operator, require_operator
from services.registry.api.training.pauses import change
from services.registry.app import Registry
from services.registry.pages.errors import page_route_class
from services.registry.pages.forms import MAX_REASON_LENGTH, REASON_NEEDED, form_of
from services.registry.pages.models import model_page_view
from services.registry.pages.rendering import Templates
from services.registry.training_controls import pause_training, resume_training

PauseChange = Literal["pause", "resume"]


def training_controls(registry: Registry, templates: Templates) -> APIRouter:
    """Routes of these pages."""
    router = APIRouter(
        include_in_schema=False,
        route_class=page_route_class(templates),
        dependencies=[Depends(require_operator)],
    )

    async def confirmation(
        model: str, kind: PauseChange, reason: str = "", problem: str = "", status: int = 200
    ) -> Response:
        registry.models.get(model)
        view = await registry.database.run(lambda session: model_page_view(session, model))
        return templates.page(
            "pause.html",
            status,
            model=view,
            kind=kind,
            reason=reason,
            problem=problem,
            max_length=MAX_REASON_LENGTH,
        )

    async def decide(model: str, kind: PauseChange, request: Request, caller: Caller) -> Response:
        registry.models.get(model)
        reason = (await form_of(request)).get("reason", "").strip()
        if not reason or len(reason) > MAX_REASON_LENGTH:
            return await confirmation(model, kind, reason, REASON_NEEDED, 422)
        decision = pause_training if kind == "pause" else resume_training
        await change(registry, model, decision, reason, caller)
        return RedirectResponse(f"/models/{model}", 303)

    @router.get("/models/{model}/pause")
    async def confirm_pause(model: str) -> Response:
        return await confirmation(model, "pause")

    @router.get("/models/{model}/resume")
    async def confirm_resume(model: str) -> Response:
        return await confirmation(model, "resume")

    @router.post("/models/{model}/pause")
    async def pause(model: str, request: Request, operator: Operator) -> Response:
        return await decide(model, "pause", request, operator)

    @router.post("/models/{model}/resume")
    async def resume(model: str, request: Request, operator: Operator) -> Response:
        return await decide(model, "resume", request, operator)

    return router
