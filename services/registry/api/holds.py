"""Routes that put a model on hold or release it. Both are idempotent."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from services.registry.api import schemas
from services.registry.api.authorization import Caller, Operator, require_operator
from services.registry.api.problems import problem_responses
from services.registry.api.views import View, model_view
from services.registry.app import Registry
from services.registry.rollout.holds import hold, release
from services.registry.store.audit_queries import OPERATOR

ACTOR = "operator"

Reason = Annotated[str, Field(min_length=1, max_length=2000, description="reason for the history")]


class ReasonedRequest(BaseModel):
    """Request with nothing but its reason."""

    model_config = ConfigDict(extra="forbid")

    reason: Reason


class HoldRequest(ReasonedRequest):
    """Request to put a model on hold or to release it."""


def routes(registry: Registry) -> APIRouter:
    """Routes for hold and release; both return the changed model."""
    router = APIRouter(prefix="/api", dependencies=[Depends(require_operator)])
    holds: Any = {
        "response_model": schemas.Model,
        "responses": problem_responses(401, 403, 404, 422, 503),
    }

    @router.post("/models/{model}/hold", **holds)
    async def post_hold(model: str, body: HoldRequest, operator: Operator) -> View:
        """Stop automatic moves of the champion. A candidate that the gate promotes waits as
        challenger.
        """
        return await _change(model, hold, body.reason, operator)

    @router.post("/models/{model}/release", **holds)
    async def post_release(model: str, body: HoldRequest, operator: Operator) -> View:
        """Release a hold: the gate and the monitor move the champion again."""
        return await _change(model, release, body.reason, operator)

    async def _change(
        model: str, change: Callable[..., bool], reason: str, operator: Caller
    ) -> View:
        registry.models.get(model)
        now = registry.clock.now()
        await registry.database.run(
            partial(change, model=model, actor=ACTOR, reason=reason, now=now),
            {OPERATOR: operator.name},
        )
        await registry.update_state_metrics(model)
        return await registry.database.run(partial(model_view, model=model))

    return router
