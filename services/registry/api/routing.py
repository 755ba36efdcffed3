"""Which version is to answer a user, over HTTP: the routing hint for applications."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from pydantic import Field
from pydantic.json_schema import SkipJsonSchema
from sqlalchemy.orm import Session

from services.registry.api import schemas as answers
from services.registry.api.authorization import reading
from services.registry.api.problems import described
from services.registry.api.views import View
from services.registry.app import Registry
from services.registry.rollout.canary_test import Kind, takes_part
from services.registry.rollout.canary_trial import is_served, rule_of, until
from services.registry.store.queries import aliases_of, hold_of, trial_of
from services.registry.versions.moves import UnknownVersion

KEEP_SECONDS = 10
"""How long an application may go on by a hint."""

Who = Annotated[str, Field(min_length=1, max_length=1024)] | SkipJsonSchema[None]


def routes(registry: Registry) -> APIRouter:
    router = APIRouter(prefix="/api", dependencies=[Depends(reading)])
    headers = {
        "Cache-Control": {
            "description": "how long the hint may be used",
            "schema": {"type": "string"},
        }
    }
    described_so: Any = {
        "responses": described(401, 404, 422, 503) | {200: {"headers": headers}},
        "openapi_extra": {"security": [{}]},
    }

    @router.get("/models/{model}/route", response_model=answers.Route, **described_so)
    async def get_route(
        model: str,
        response: Response,
        user: Annotated[
            Who, Query(description="the user_id that feedback on the answer will have")
        ] = None,
        conversation: Annotated[
            Who, Query(description="its conversation_id, where there is no user")
        ] = None,
    ) -> View:
        """The challenger for a share of users while one is on trial, else the champion; always the
        same one for the same user. Without a user or a conversation the champion.
        """
        registry.models.get(model)
        kind: Kind = "user" if user is not None else "conversation"
        view = await registry.database.run(
            partial(_route, registry=registry, model=model, kind=kind, who=user or conversation)
        )
        response.headers["Cache-Control"] = f"private, max-age={KEEP_SECONDS}"
        return view

    return router


def _route(session: Session, registry: Registry, model: str, kind: Kind, who: str | None) -> View:
    aliases, trial = aliases_of(session, model), trial_of(session, model)
    if aliases is None or aliases.champion is None:
        raise UnknownVersion(f"{model} has no version yet")
    places = registry.deployer.places_for_two(model)
    if trial is not None and (
        hold_of(session, model) is not None or not places or not is_served(session, trial, places)
    ):
        trial = None
    tried = (
        trial is not None
        and who is not None
        and takes_part(model, trial.version, kind, who, rule_of(trial).share)
    )
    version = trial.version if trial is not None and tried else None
    names = registry.deployer.names_at(model, version)
    return {
        "model": model,
        "version": version or aliases.champion,
        "alias": "challenger" if tried else "champion",
        "served": [{"target": target, "name": name} for target, name in names.items()],
        "share": rule_of(trial).share if trial is not None else 0.0,
        "until": until(trial) if trial is not None else None,
    }
