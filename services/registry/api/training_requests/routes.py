"""Routes that upload a file, request a training, and follow it."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic.json_schema import SkipJsonSchema
from starlette.requests import ClientDisconnect

from services.registry.api import pagination as paging
from services.registry.api.authorization import Operator, require_operator, require_reader
from services.registry.api.move_routes import Key
from services.registry.api.pagination import page_request
from services.registry.api.problems import problem_responses
from services.registry.api.read_routes import Cursor, Limit, list_response
from services.registry.api.schemas import ListPage
from services.registry.api.training_requests.requests import (
    TrainingStarts,
    requests_page,
    require_request,
    view_of,
)
from services.registry.api.training_requests.schemas import (
    StoredUpload,
    TrainingRequestBody,
    TrainingRequestState,
)
from services.registry.api.views import View
from shared.events import Digest, UploadName

_BODY: Any = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def routes(starts: TrainingStarts) -> APIRouter:
    router = APIRouter(prefix="/api")
    registry = starts.registry
    operated: Any = {"dependencies": [Depends(require_operator)]}
    readable: Any = {
        "dependencies": [Depends(require_reader)],
        "openapi_extra": {"security": [{}]},
        "responses": problem_responses(401, 404, 422, 503),
    }

    @router.post(
        "/models/{model}/uploads",
        response_model=StoredUpload,
        responses=problem_responses(401, 403, 404, 413, 422, 503),
        openapi_extra=_BODY,
        **operated,
    )
    async def post_upload(
        model: str,
        request: Request,
        name: Annotated[UploadName, Query(description="name of the file; CSV needs its suffix")],
        digest: Annotated[
            Digest | SkipJsonSchema[None],
            Query(description="`sha256:` and 64 hexadecimal digits that the body has to have"),
        ] = None,
    ) -> Any:
        """Store a file to train on: the body is the file itself."""
        registry.models.get(model)
        length = request.headers.get("content-length")
        try:
            stored = await starts.uploads.receive(
                model,
                request.stream(),
                int(length) if length else None,
                digest,
                registry.clock.now(),
            )
        except ClientDisconnect:
            return Response(status_code=400)
        return {
            "upload": stored.artefact.uri,
            "digest": stored.artefact.digest,
            "name": name,
            "bytes": stored.size,
        }

    @router.post(
        "/models/{model}/training-requests",
        response_model=TrainingRequestState,
        responses=problem_responses(401, 403, 404, 422, 503),
        **operated,
    )
    async def post_training_request(
        model: str, body: TrainingRequestBody, operator: Operator, idempotency_key: Key = None
    ) -> View:
        """Start a training: the builder makes a batch of the data, which the gate judges like any
        other.
        """
        key = idempotency_key.strip('"') if idempotency_key else None
        return await starts.start(model, body, key, operator.name)

    @router.get(
        "/models/{model}/training-requests",
        response_model=ListPage[TrainingRequestState],
        **readable,
    )
    async def list_training_requests(
        model: str,
        request: Request,
        response: Response,
        limit: Limit = paging.DEFAULT_LIMIT,
        cursor: Cursor = None,
    ) -> View:
        registry.models.get(model)
        page = page_request(
            f"training requests of {model}", limit, cursor, paging.parse_time_and_name
        )
        return list_response(
            request,
            response,
            limit,
            await registry.database.run(partial(requests_page, model=model, page=page)),
        )

    @router.get(
        "/models/{model}/training-requests/{request_id}",
        response_model=TrainingRequestState,
        **readable,
    )
    async def get_training_request(model: str, request_id: str) -> View:
        registry.models.get(model)
        return await registry.database.run(
            lambda session: view_of(session, require_request(session, model, request_id))
        )

    return router
