"""What the intake answers: JSON, and problem details (RFC 9457) that say what to do."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from pydantic_core import to_json

from shared.errors import RatchetError


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response, but for what every response has."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


class Problem(RatchetError):
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

    def answer(self) -> Answer:
        said = {
            "type": "about:blank",
            "title": self.status.phrase,
            "status": int(self.status),
            "detail": str(self),
        }
        return Answer(
            self.status, to_json(said | self.members), "application/problem+json", self.headers
        )


def later(status: HTTPStatus, detail: str, seconds: int) -> Problem:
    """A problem that goes away by itself."""
    return Problem(status, detail, {"Retry-After": str(seconds)})
