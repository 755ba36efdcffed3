"""What the retention rule would do, over HTTP. Nothing can be removed this way."""

from fastapi import APIRouter, Depends

from services.registry.api import schemas as answers
from services.registry.api.authorization import require_reader
from services.registry.api.problems import problem_responses
from services.registry.api.views import View
from services.registry.retention.pruner import Pruner
from services.registry.retention.rule import RetentionDecision
from shared.config.model_file import Models


def routes(models: Models, pruner: Pruner) -> APIRouter:
    router = APIRouter(prefix="/api", dependencies=[Depends(require_reader)])

    @router.get(
        "/models/{model}/retention",
        response_model=answers.RetentionPlan,
        responses=problem_responses(401, 404, 422, 503),
        openapi_extra={"security": [{}]},
    )
    async def get_retention(model: str) -> View:
        """Every adapter that is not removed yet, newest run first: whether it goes, and if not, why
        it stays.
        """
        rule = models.get(model).retention
        items = [_judged_view(judged) for judged in await pruner.plan(model)]
        return {"model": model, "rule": rule.model_dump() if rule else None, "items": items}

    return router


def _judged_view(judged: RetentionDecision) -> View:
    stored = judged.stored
    return {
        "run_id": stored.run_id,
        "version": stored.version,
        "uri": stored.uri,
        "ended_at": stored.ended,
        "goes": judged.removable,
        "stays_because": list(judged.reasons),
    }
