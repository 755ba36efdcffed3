"""Route with the routing hint for applications: the version that serves a user."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from services.registry.api import schemas
from services.registry.api.authorization import require_reader
from services.registry.api.problems import problem_responses
from services.registry.api.views import View
from services.registry.app import Registry
from services.registry.rollout.canary_test import IdentityKind, in_canary_share
from services.registry.rollout.canary_trial import deadline, is_served, trial_rule
from services.registry.store.database import Session
from services.registry.store.queries import aliases_of, canary_trial_of, hold_of
from services.registry.versions.moves import UnknownVersion

HINT_MAX_AGE_SECONDS = 10
"""Time for which an application may cache a routing hint."""

RoutingId = Annotated[str, Field(min_length=1, max_length=1024)] | SkipJsonSchema[None]


def routes(registry: Registry) -> APIRouter:
    router = APIRouter(prefix="/api", dependencies=[Depends(require_reader)])
    headers = {
        "Cache-Control": {
            "description": "how long the hint may be cached",
            "schema": {"type": "string"},
        }
    }
    documented: Any = {
        "responses": problem_responses(401, 404, 422, 503) | {200: {"headers": headers}},
        "openapi_extra": {"security": [{}]},
    }

    @router.get("/models/{model}/route", response_model=schemas.Route, **documented)
    async def get_route(
        model: str,
        response: Response,
        user: Annotated[
            RoutingId, Query(description="the user_id that feedback on the response will have")
        ] = None,
        conversation: Annotated[
            RoutingId, Query(description="the conversation_id, for applications without users")
        ] = None,
    ) -> View:
        """Return the version that serves a user: the challenger for a share of users during a
        canary trial, else the champion; always the same one for the same user. Without a user or
        a conversation it is the champion.
        """
        registry.models.get(model)
        kind: IdentityKind = "user" if user is not None else "conversation"
        view = await registry.database.run(
            partial(
                _route, registry=registry, model=model, kind=kind, identifier=user or conversation
            )
        )
        response.headers["Cache-Control"] = f"private, max-age={HINT_MAX_AGE_SECONDS}"
        return view

    return router


def _route(
    session: Session, registry: Registry, model: str, kind: IdentityKind, identifier: str | None
) -> View:
    aliases, trial = aliases_of(session, model), canary_trial_of(session, model)
    if aliases is None or aliases.champion is None:
        raise UnknownVersion(f"{model} has no version yet")
    targets = registry.deployer.canary_target_names(model)
    if trial is not None and (
        hold_of(session, model) is not None or not targets or not is_served(session, trial, targets)
    ):
        trial = None
    uses_challenger = (
        trial is not None
        and identifier is not None
        and in_canary_share(model, trial.version, kind, identifier, trial_rule(trial).share)
    )
    version = trial.version if trial is not None and uses_challenger else None
    names = registry.deployer.served_names(model, version)
    return {
        "model": model,
        "version": version or aliases.champion,
        "alias": "challenger" if uses_challenger else "champion",
        "served": [{"target": target, "name": name} for target, name in names.items()],
        "share": trial_rule(trial).share if trial is not None else 0.0,
        "until": deadline(trial) if trial is not None else None,
    }
