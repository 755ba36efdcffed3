"""The intake's web application (Starlette): `POST /v1/feedback`, probes and metrics."""

from dataclasses import dataclass
from http import HTTPStatus

from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from services.feedback.intake.authorization import TokenSource, authorize
from services.feedback.intake.delivery import Delivery
from services.feedback.intake.in_flight_budget import InFlightBudget
from services.feedback.intake.parsing import parse_events
from services.feedback.intake.problems import IntakeProblem
from services.feedback.scoring import Policies
from shared.http.health_server import health_routes
from shared.service.runtime import Runtime

FEEDBACK_PATH = "/v1/feedback"
JSON_CONTENT_TYPES = frozenset(
    {"application/json", "application/cloudevents+json", "application/cloudevents-batch+json"}
)


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Bounds of one request, in events and bytes, and of all requests in flight, in bytes."""

    max_events: int
    max_body_bytes: int
    max_in_flight_bytes: int


class Intake:
    """Handlers of the intake's paths; `app` routes to them."""

    def __init__(
        self,
        limits: RequestLimits,
        policies: Policies,
        delivery: Delivery,
        tokens: TokenSource | None,
        runtime: Runtime,
    ) -> None:
        self._limits = limits
        self._policies = policies
        self._delivery = delivery
        self._tokens = tokens
        self._clock = runtime.clock
        self._metrics = runtime.metrics
        self._budget = InFlightBudget(
            limits.max_in_flight_bytes,
            lambda used: self._metrics.set("ratchet_intake_bytes_in_flight", used),
        )
        self.app = Starlette(
            routes=[
                Route(FEEDBACK_PATH, self._feedback, methods=["POST"]),
                *health_routes(runtime.health, runtime.metrics.registry),
            ],
            exception_handlers={HTTPException: self._unrouted},
            lifespan=lambda app: delivery.connection(),
        )
        self.app.router.redirect_slashes = False

    async def _feedback(self, request: Request) -> Response:
        try:
            response = await self._deliver(request)
        except IntakeProblem as problem:
            self._count_request(problem.status)
            return problem.response()
        except ClientDisconnect:
            return Response(status_code=HTTPStatus.BAD_REQUEST)  # nobody is left to read it
        self._count_request(HTTPStatus.ACCEPTED)
        return response

    async def _deliver(self, request: Request) -> Response:
        size = self._check_head(request)
        with self._budget.reserve(size):
            events = parse_events(
                await _read_body(request, size), self._limits.max_events, self._policies
            )
            started = self._clock.monotonic()
            await self._delivery.deliver(events)
        self._metrics.observe(
            "ratchet_intake_acknowledged_seconds", self._clock.monotonic() - started
        )
        self._metrics.count("ratchet_intake_events_total", len(events))
        return Response(
            to_json({"accepted": len(events), "event_ids": [event.event_id for event in events]}),
            HTTPStatus.ACCEPTED,
            media_type="application/json",
        )

    def _check_head(self, request: Request) -> int:
        """Return how many bytes of body to accept. Raises IntakeProblem."""
        authorize(request.client.host if request.client else None, request.headers, self._tokens)
        # A page of another site can make a browser on this machine post, but not with this content
        # type.
        content_type = request.headers.get("content-type", "")
        if content_type.partition(";")[0].strip().lower() not in JSON_CONTENT_TYPES:
            raise IntakeProblem(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "set Content-Type: application/json"
            )
        declared = int(request.headers.get("content-length", self._limits.max_body_bytes))
        if declared > self._limits.max_body_bytes:
            raise IntakeProblem(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the body has {declared} bytes; the limit is {self._limits.max_body_bytes}",
            )
        return declared

    async def _unrouted(self, request: Request, error: Exception) -> Response:
        """Answer an unknown path or a wrong method with problem details."""
        assert isinstance(error, HTTPException)
        status = HTTPStatus(error.status_code)
        if request.url.path == FEEDBACK_PATH:
            self._count_request(status)
        detail = f"unknown path or method; send feedback with POST {FEEDBACK_PATH}"
        return IntakeProblem(status, detail, error.headers).response()

    def _count_request(self, status: HTTPStatus) -> None:
        self._metrics.count("ratchet_intake_requests_total", status=str(int(status)))


async def _read_body(request: Request, max_bytes: int) -> bytes:
    """Read the whole body. Raises IntakeProblem (413) past `max_bytes`, and ClientDisconnect."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise IntakeProblem(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the body is too long; the limit is {max_bytes} bytes",
            )
    return bytes(body)
