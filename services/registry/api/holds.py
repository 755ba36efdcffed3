"""Holds over HTTP: what an operator puts on a model, or lifts. Doing it twice is no error."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from services.registry.api import schemas as answers
from services.registry.api.authorization import require_operator
from services.registry.api.problems import problem_responses
from services.registry.api.views import View, model_view
from services.registry.app import Registry
from services.registry.rollout.holds import hold, release

ACTOR = "operator"

Reason = Annotated[
    str, Field(min_length=1, max_length=2000, description="why; it is kept in the history")
]


class HoldRequest(BaseModel):
    """Put a model on hold, or lift its hold."""

    model_config = ConfigDict(extra="forbid")

    reason: Reason


def routes(registry: Registry) -> APIRouter:
    """Both answer with the model as it is then."""
    router = APIRouter(prefix="/api", dependencies=[Depends(require_operator)])
    holds: Any = {
        "response_model": answers.Model,
        "responses": problem_responses(401, 403, 404, 422, 503),
    }

    @router.post("/models/{model}/hold", **holds)
    async def post_hold(model: str, body: HoldRequest) -> View:
        """From now on nothing but a person moves the champion; what the gate promotes waits as
        challenger.
        """
        return await _change(model, hold, body.reason)

    @router.post("/models/{model}/release", **holds)
    async def post_release(model: str, body: HoldRequest) -> View:
        """Lift a hold: the gate's verdicts and the monitor move the champion again."""
        return await _change(model, release, body.reason)

    async def _change(model: str, change: Callable[..., bool], reason: str) -> View:
        registry.models.get(model)
        now = registry.clock.now()
        await registry.database.run(
            partial(change, model=model, actor=ACTOR, reason=reason, now=now)
        )
        await registry.update_state_metrics(model)
        return await registry.database.run(partial(model_view, model=model))

    return router
