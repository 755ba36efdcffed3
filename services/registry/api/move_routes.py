"""Routes that move the champion."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header
from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from services.registry.api import schemas
from services.registry.api.authorization import Operator, require_operator
from services.registry.api.champion_moves import move_champion
from services.registry.api.etag import IF_MATCH_PATTERN
from services.registry.api.holds import Reason
from services.registry.api.idempotency import (
    KEY_PATTERN,
    IdempotentRequest,
    idempotent_request,
)
from services.registry.api.problems import problem_responses
from services.registry.api.views import View
from services.registry.app import Registry
from services.registry.versions.moves import promote_by_operator, roll_back
from shared.identity import identity

IfMatch = Annotated[
    Annotated[str, Field(pattern=IF_MATCH_PATTERN, max_length=1024)] | SkipJsonSchema[None],
    Header(alias="If-Match", description="move only if the aliases still have this `ETag`"),
]
Key = Annotated[
    Annotated[str, Field(pattern=KEY_PATTERN)] | SkipJsonSchema[None],
    Header(
        alias="Idempotency-Key",
        description="the same key and request, within 24 hours, is one move with one response",
    ),
]


class PromoteRequest(BaseModel):
    """Request to make `version` champion, by default the challenger."""

    model_config = ConfigDict(extra="forbid")

    version: str | None = None
    reason: Reason


class RollbackRequest(BaseModel):
    """Request to move the champion to `to`, by default to `previous`."""

    model_config = ConfigDict(extra="forbid")

    to: str | None = None
    reason: Reason


def routes(registry: Registry) -> APIRouter:
    router = APIRouter(prefix="/api", dependencies=[Depends(require_operator)])
    models = registry.models
    moves: Any = {
        "response_model": schemas.ChampionMove,
        "responses": problem_responses(401, 403, 404, 409, 412, 422, 503),
    }

    @router.post("/models/{model}/promote", **moves)
    async def post_promote(
        model: str,
        body: PromoteRequest,
        operator: Operator,
        if_match: IfMatch = None,
        idempotency_key: Key = None,
    ) -> View:
        models.get(model)
        key = _idempotent("promote", model, body, if_match, idempotency_key)
        return await move_champion(
            registry,
            model,
            lambda session, now: promote_by_operator(
                session, model, body.version, body.reason, now
            ),
            if_match,
            key,
            operator.name,
        )

    @router.post("/models/{model}/rollback", **moves)
    async def post_rollback(
        model: str,
        body: RollbackRequest,
        operator: Operator,
        if_match: IfMatch = None,
        idempotency_key: Key = None,
    ) -> View:
        """Return when all targets serve the version, or after 10 seconds; `deployed` says which."""
        models.get(model)
        key = _idempotent("rollback", model, body, if_match, idempotency_key)
        return await move_champion(
            registry,
            model,
            lambda session, now: roll_back(session, model, body.to, body.reason, "operator", now),
            if_match,
            key,
            operator.name,
        )

    return router


def _idempotent(
    kind: str, model: str, body: BaseModel, if_match: str | None, key: str | None
) -> IdempotentRequest | None:
    return (
        None
        if key is None
        else idempotent_request(key, identity(kind, model, body.model_dump_json(), if_match or ""))
    )
