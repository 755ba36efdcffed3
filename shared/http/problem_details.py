"""Problem details (RFC 9457), the JSON body of every HTTP error."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic_core import to_json

PROBLEM_JSON = "application/problem+json"


@dataclass(frozen=True, slots=True)
class ProblemDetails:
    """One HTTP error: `title` names the kind of problem, `detail` says what to do about it.

    `members` are extension members of the body; None values are omitted.
    """

    status: int
    title: str
    detail: str
    members: Mapping[str, object] = field(default_factory=dict)

    @property
    def body(self) -> bytes:
        # Half a surrogate pair, which JSON allows in a name, has no UTF-8 form.
        detail = self.detail.encode(errors="replace").decode()
        document = {
            "type": "about:blank",
            "title": self.title,
            "status": self.status,
            "detail": detail,
        }
        return to_json(
            document | {name: value for name, value in self.members.items() if value is not None}
        )
