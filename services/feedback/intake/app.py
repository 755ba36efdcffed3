"""The paths: `POST /v1/feedback`, and health and metrics beside it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus

from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from pydantic_core import to_json

from services.feedback.intake.authorization import TokensNow, admit
from services.feedback.intake.delivery import Delivery
from services.feedback.intake.http import Head
from services.feedback.intake.in_flight_budget import Room
from services.feedback.intake.parsing import read
from services.feedback.intake.responses import Answer, Problem
from services.feedback.scoring import Policies
from shared.clock import Clock
from shared.observability.health import Health
from shared.observability.metrics import Metrics

PATH = "/v1/feedback"
PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
JSON = frozenset(
    {"application/json", "application/cloudevents+json", "application/cloudevents-batch+json"}
)


@dataclass(frozen=True, slots=True)
class Limits:
    """Of a request, in events and bytes, and of all that are under way, in bytes."""

    events: int
    body: int
    in_flight: int


class Intake:
    """An `http.Application`."""

    def __init__(
        self,
        limits: Limits,
        policies: Policies,
        delivery: Delivery,
        tokens: TokensNow | None,
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
        self._room = Room(
            limits.in_flight, lambda taken: metrics.set("ratchet_intake_bytes_in_flight", taken)
        )

    @contextmanager
    def admitted(self, head: Head) -> Iterator[int]:
        if head.path in PROBES:
            yield 0
            return
        if head.path != PATH:
            raise Problem(
                HTTPStatus.NOT_FOUND, f"there is nothing at this path; feedback is sent to {PATH}"
            )
        try:
            size = self._allowed(head)
            with self._room.holding(size):
                yield size
            self._metrics.count("ratchet_intake_requests_total", status="202")
        except Problem as problem:
            self._metrics.count("ratchet_intake_requests_total", status=str(int(problem.status)))
            raise

    async def answer(self, head: Head, body: bytes) -> Answer:
        if head.path in PROBES:
            return self._probed(head.path)
        entries = read(body, self._limits.events, self._policies)
        begun = self._clock.monotonic()
        await self._delivery.put(entries)
        self._metrics.observe(
            "ratchet_intake_acknowledged_seconds", self._clock.monotonic() - begun
        )
        self._metrics.count("ratchet_intake_events_total", len(entries))
        return Answer(
            HTTPStatus.ACCEPTED,
            to_json({"accepted": len(entries), "event_ids": [entry.event_id for entry in entries]}),
        )

    def _allowed(self, head: Head) -> int:
        """How many bytes of body it may send. Raises Problem."""
        if head.method != "POST":
            raise Problem(
                HTTPStatus.METHOD_NOT_ALLOWED, f"feedback is sent: POST {PATH}", {"Allow": "POST"}
            )
        admit(head.peer, head.headers, self._tokens)
        # A page of another site can make a browser on this machine post, but not with this content
        # type.
        if head.headers.get("content-type", "").partition(";")[0].strip().lower() not in JSON:
            raise Problem(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send it with Content-Type: application/json"
            )
        declared = int(head.headers.get("content-length", self._limits.body))
        if declared > self._limits.body:
            raise Problem(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the body is {declared} bytes long; at most {self._limits.body}",
            )
        return declared

    def _probed(self, path: str) -> Answer:
        if path == "/metrics":
            return Answer(
                HTTPStatus.OK, generate_latest(self._metrics.registry), CONTENT_TYPE_LATEST
            )
        good = self._health.is_live if path == "/healthz" else self._health.is_ready
        status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
        return Answer(status, f"{status.value} {status.phrase}\n".encode(), "text/plain")
