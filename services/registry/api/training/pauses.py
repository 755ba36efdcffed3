"""Routes that pause and resume the training of a model. Both are idempotent."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Depends

from services.registry.api import schemas
from services.registry.api.authorization import Caller, Operator, require_operator
from services.registry.api.holds import ReasonedRequest
from services.registry.api.problems import problem_responses
from services.registry.api.views import View, model_view
from services.registry.app import Registry
from services.registry.store.database import Session
from services.registry.training_controls import pause_training, resume_training
from shared.events import PauseEvent


class PauseRequest(ReasonedRequest):
    """Request to pause the training of a model or to resume it."""


def routes(registry: Registry) -> APIRouter:
    """Routes for pause and resume; both return the changed model."""
    router = APIRouter(prefix="/api", dependencies=[Depends(require_operator)])
    pauses: Any = {
        "response_model": schemas.Model,
        "responses": problem_responses(401, 403, 404, 422, 503),
    }

    @router.post("/models/{model}/pause", **pauses)
    async def post_pause(model: str, body: PauseRequest, operator: Operator) -> View:
        """Start no new training run of a model. A run that has started is completed. Feedback is
        taken and batches form meanwhile; they wait.
        """
        return await change(registry, model, pause_training, body.reason, operator)

    @router.post("/models/{model}/resume", **pauses)
    async def post_resume(model: str, body: PauseRequest, operator: Operator) -> View:
        """End a pause: the waiting batches are trained, the oldest first."""
        return await change(registry, model, resume_training, body.reason, operator)

    return router


async def change(
    registry: Registry,
    model: str,
    decide: Callable[..., PauseEvent | None],
    reason: str,
    operator: Caller,
) -> View:
    """Pause or resume the training of a model for an operator; return the changed model."""
    registry.models.get(model)

    def decided(session: Session, now: datetime) -> tuple[PauseEvent | None, View]:
        event = decide(session, model, reason, now)
        return event, model_view(session, model)

    _, view = await registry.decide(decided, operator.name)
    await registry.update_state_metrics(model)
    return view
