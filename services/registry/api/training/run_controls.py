"""Routes that cancel and resume a run. Both are idempotent."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Depends

from services.registry.api import schemas
from services.registry.api.authorization import Caller, Operator, require_operator
from services.registry.api.holds import ReasonedRequest
from services.registry.api.problems import problem_responses
from services.registry.api.views import View, run_view
from services.registry.app import Registry
from services.registry.store.database import Session
from services.registry.store.tables import RunRow
from services.registry.training_controls import cancel_run, resume_run
from shared.events import RunControlEvent


class RunControlRequest(ReasonedRequest):
    """Request to cancel a run or to resume it."""


def routes(registry: Registry) -> APIRouter:
    """Routes for cancel and resume; both return the changed run."""
    router = APIRouter(prefix="/api", dependencies=[Depends(require_operator)])
    controls: Any = {
        "response_model": schemas.Run,
        "responses": problem_responses(401, 403, 404, 409, 422, 503),
    }

    @router.post("/runs/{run_id}/cancel", **controls)
    async def post_cancel_run(run_id: str, body: RunControlRequest, operator: Operator) -> View:
        """Cancel a run that has no outcome yet, started or not. Training stops after
        its current step and keeps its checkpoint; the next batch is trained.
        """
        return await change_run(registry, run_id, cancel_run, body.reason, operator)

    @router.post("/runs/{run_id}/resume", **controls)
    async def post_resume_run(run_id: str, body: RunControlRequest, operator: Operator) -> View:
        """Resume a cancelled run, from its checkpoint unless champion or data have changed."""
        return await change_run(registry, run_id, resume_run, body.reason, operator)

    return router


async def change_run(
    registry: Registry,
    run_id: str,
    decide: Callable[..., RunControlEvent | None],
    reason: str,
    operator: Caller,
) -> View:
    """Cancel or resume a run for an operator; return the changed run."""

    def decided(session: Session, now: datetime) -> tuple[RunControlEvent | None, View]:
        event = decide(session, run_id, reason, now)
        run = session.get(RunRow, run_id)
        assert run is not None
        return event, run_view(session, run)

    _, view = await registry.decide(decided, operator.name)
    return view
