"""What the intake answers: JSON, and problem details (RFC 9457) that say what to do."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from pydantic_core import to_json

from shared.errors import RatchetError


@dataclass(frozen=True, slots=True)
class IntakeResponse:
    """A whole response, but for what every response has."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


class IntakeProblem(RatchetError):
    """A request that is not done as it was asked for. `members` go into the answer beside its
    detail: an event's `index`, its `field`.
    """

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        headers: Mapping[str, str] | None = None,
        **members: str | int,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = headers or {}
        self.members = members

    def response(self) -> IntakeResponse:
        said = {
            "type": "about:blank",
            "title": self.status.phrase,
            "status": int(self.status),
            "detail": str(self),
        }
        return IntakeResponse(
            self.status, to_json(said | self.members), "application/problem+json", self.headers
        )


def retry_after(status: HTTPStatus, detail: str, seconds: int) -> IntakeProblem:
    """A problem that goes away by itself."""
    return IntakeProblem(status, detail, {"Retry-After": str(seconds)})
