"""Route that shows the plan of the retention rule; it removes nothing."""

from fastapi import APIRouter, Depends

from services.registry.api import schemas
from services.registry.api.authorization import require_reader
from services.registry.api.problems import problem_responses
from services.registry.api.views import View
from services.registry.retention.pruner import Pruner
from services.registry.retention.rule import RetentionDecision
from shared.config.models import Models


def routes(models: Models, pruner: Pruner) -> APIRouter:
    router = APIRouter(prefix="/api", dependencies=[Depends(require_reader)])

    @router.get(
        "/models/{model}/retention",
        response_model=schemas.RetentionPlan,
        responses=problem_responses(401, 404, 422, 503),
        openapi_extra={"security": [{}]},
    )
    async def get_retention(model: str) -> View:
        """List the adapters in the object store, newest run first: whether the rule removes each,
        and the reasons if not.
        """
        rule = models.get(model).retention
        items = [_decision_view(decision) for decision in await pruner.plan(model)]
        return {"model": model, "rule": rule.model_dump() if rule else None, "items": items}

    return router


def _decision_view(decision: RetentionDecision) -> View:
    stored = decision.stored
    return {
        "run_id": stored.run_id,
        "version": stored.version,
        "uri": stored.uri,
        "ended_at": stored.ended,
        "goes": decision.removable,
        "stays_because": list(decision.reasons),
    }
