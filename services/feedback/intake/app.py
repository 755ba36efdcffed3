"""The paths: `POST /v1/feedback`, and health and metrics beside it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus

from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from pydantic_core import to_json

from services.feedback.intake.authorization import TokenSource, authorize
from services.feedback.intake.delivery import Delivery
from services.feedback.intake.http import RequestHead
from services.feedback.intake.in_flight_budget import InFlightBudget
from services.feedback.intake.parsing import parse_events
from services.feedback.intake.responses import IntakeProblem, IntakeResponse
from services.feedback.scoring import Policies
from shared.clock import Clock
from shared.observability.health import Health
from shared.observability.metrics import Metrics

FEEDBACK_PATH = "/v1/feedback"
PROBE_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
JSON_CONTENT_TYPES = frozenset(
    {"application/json", "application/cloudevents+json", "application/cloudevents-batch+json"}
)


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Of a request, in events and bytes, and of all that are under way, in bytes."""

    max_events: int
    max_body_bytes: int
    max_in_flight_bytes: int


class Intake:
    """An `http.Application`."""

    def __init__(
        self,
        limits: RequestLimits,
        policies: Policies,
        delivery: Delivery,
        tokens: TokenSource | None,
        health: Health,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._limits = limits
        self._policies = policies
        self._delivery = delivery
        self._tokens = tokens
        self._health = health
        self._metrics = metrics
        self._clock = clock
        self._room = InFlightBudget(
            limits.max_in_flight_bytes,
            lambda taken: metrics.set("ratchet_intake_bytes_in_flight", taken),
        )

    @contextmanager
    def admitted(self, head: RequestHead) -> Iterator[int]:
        if head.path in PROBE_PATHS:
            yield 0
            return
        if head.path != FEEDBACK_PATH:
            raise IntakeProblem(
                HTTPStatus.NOT_FOUND,
                f"there is nothing at this path; feedback is sent to {FEEDBACK_PATH}",
            )
        try:
            size = self._allowed(head)
            with self._room.reserve(size):
                yield size
            self._metrics.count("ratchet_intake_requests_total", status="202")
        except IntakeProblem as problem:
            self._metrics.count("ratchet_intake_requests_total", status=str(int(problem.status)))
            raise

    async def answer(self, head: RequestHead, body: bytes) -> IntakeResponse:
        if head.path in PROBE_PATHS:
            return self._probed(head.path)
        entries = parse_events(body, self._limits.max_events, self._policies)
        begun = self._clock.monotonic()
        await self._delivery.deliver(entries)
        self._metrics.observe(
            "ratchet_intake_acknowledged_seconds", self._clock.monotonic() - begun
        )
        self._metrics.count("ratchet_intake_events_total", len(entries))
        return IntakeResponse(
            HTTPStatus.ACCEPTED,
            to_json({"accepted": len(entries), "event_ids": [entry.event_id for entry in entries]}),
        )

    def _allowed(self, head: RequestHead) -> int:
        """How many bytes of body it may send. Raises Problem."""
        if head.method != "POST":
            raise IntakeProblem(
                HTTPStatus.METHOD_NOT_ALLOWED,
                f"feedback is sent: POST {FEEDBACK_PATH}",
                {"Allow": "POST"},
            )
        authorize(head.peer, head.headers, self._tokens)
        # A page of another site can make a browser on this machine post, but not with this content
        # type.
        if (
            head.headers.get("content-type", "").partition(";")[0].strip().lower()
            not in JSON_CONTENT_TYPES
        ):
            raise IntakeProblem(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send it with Content-Type: application/json"
            )
        declared = int(head.headers.get("content-length", self._limits.max_body_bytes))
        if declared > self._limits.max_body_bytes:
            raise IntakeProblem(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the body is {declared} bytes long; at most {self._limits.max_body_bytes}",
            )
        return declared

    def _probed(self, path: str) -> IntakeResponse:
        if path == "/metrics":
            return IntakeResponse(
                HTTPStatus.OK, generate_latest(self._metrics.registry), CONTENT_TYPE_LATEST
            )
        good = self._health.is_live if path == "/healthz" else self._health.is_ready
        status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
        return IntakeResponse(status, f"{status.value} {status.phrase}\n".encode(), "text/plain")
