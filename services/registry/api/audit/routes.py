"""Route that lists the audit log with its hash chain, oldest entry first."""

from datetime import UTC
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import AwareDatetime, Field
from pydantic.json_schema import SkipJsonSchema

from services.registry.api import pagination as paging
from services.registry.api import schemas
from services.registry.api.authorization import require_reader
from services.registry.api.problems import problem_responses
from services.registry.api.read_routes import Cursor, Limit
from services.registry.api.views import View
from services.registry.app import Registry
from services.registry.store.audit_chain import chain_entries, count_unchained, fields_of
from services.registry.store.database import Session
from services.registry.store.tables import AuditRow

ModelName = Annotated[str, Field(max_length=512)] | SkipJsonSchema[None]
Since = AwareDatetime | SkipJsonSchema[None]


def routes(registry: Registry) -> APIRouter:
    router = APIRouter(prefix="/api", dependencies=[Depends(require_reader)])
    link = {
        "Link": {
            "description": 'the next page, as `<...>; rel="next"`, if there is one',
            "schema": {"type": "string"},
        }
    }

    @router.get(
        "/audit",
        response_model=schemas.AuditPage,
        responses=problem_responses(401, 422, 503) | {200: {"headers": link}},
        openapi_extra={"security": [{}]},
    )
    async def list_audit(
        request: Request,
        response: Response,
        model: Annotated[ModelName, Query(description="only entries of this model")] = None,
        since: Annotated[
            Since, Query(description="only entries of this time, with a time zone, or later")
        ] = None,
        limit: Limit = paging.DEFAULT_LIMIT,
        cursor: Cursor = None,
    ) -> View:
        """List the audit log, oldest entry first. Without `model` and `since` it is the whole hash
        chain, which `ratchet audit verify` checks.
        """
        filters = {"model": model, "since": since.astimezone(UTC).isoformat() if since else None}
        chosen = {name: value for name, value in filters.items() if value is not None}
        page = paging.page_request(f"audit {chosen}", limit, cursor, paging.parse_number)

        def entries(session: Session) -> tuple[paging.Page[AuditRow], int]:
            rows = chain_entries(session, page.after or 0, page.limit + 1, model, since)
            return paging.paginate(page, rows, lambda row: [row.number or 0]), count_unchained(
                session
            )

        listed, unchained = await registry.database.run(entries)
        if listed.next is not None:
            response.headers["Link"] = paging.next_link(
                request.url.path, limit, listed.next, **chosen
            )
        return {
            "items": [chained_view(row) for row in listed.rows],
            "next": listed.next,
            "unchained": unchained,
        }

    return router


def chained_view(row: AuditRow) -> View:
    """Return an entry of the chain: the fields that its hash covers, and the hash."""
    return fields_of(row) | {"hash": row.hash}
