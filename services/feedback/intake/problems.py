"""Refused requests, answered as problem details (RFC 9457)."""

from collections.abc import Mapping
from http import HTTPStatus

from starlette.responses import Response

from shared.errors import RatchetError
from shared.http.problem_details import PROBLEM_JSON, ProblemDetails


class IntakeProblem(RatchetError):
    """A refused request. `members` extend the problem details: an event's `index`, its `field`."""

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        headers: Mapping[str, str] | None = None,
        **members: str | int,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = headers
        self.members = members

    def response(self) -> Response:
        details = ProblemDetails(self.status, self.status.phrase, str(self), self.members)
        return Response(details.body, self.status, self.headers, PROBLEM_JSON)


def retry_after(status: HTTPStatus, detail: str, seconds: int) -> IntakeProblem:
    """Build a temporary problem: the client may repeat the request after `seconds`."""
    return IntakeProblem(status, detail, {"Retry-After": str(seconds)})
