"""Tracing port: the processing of a record as spans that are linked across services.

    feedback.received ─▶ score ─▶ feedback.scored         the trace of the sender, if it sent one
                           ┆ (links)
                         batch ─▶ train ─▶ register ─▶ deploy      the trace of a batch

Span context is passed on in the W3C header `traceparent` (https://www.w3.org/TR/trace-context/).
The trace id of a batch and the span ids that later spans refer to are functions of the batch's id:
a batch that is closed again, or a version that is deployed after a restart, gets the same ids
without stored state.

`NoopTracing` is used when tracing is off; it costs next to nothing. OpenTelemetry is in
`shared/observability/otlp.py`.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import Annotated, Protocol

from pydantic import AnyHttpUrl, Field, UrlConstraints

from shared.errors import SettingsError
from shared.messaging.codec import Headers
from shared.version import install_command

Endpoint = Annotated[AnyHttpUrl, UrlConstraints(allowed_schemes=["http", "https"])]
TracesEndpoint = Annotated[
    Endpoint | None,
    Field(
        description="OTLP/HTTP endpoint for traces, such as http://127.0.0.1:4318/v1/traces; needs "
        "the extra `traces`"
    ),
]


class Span(Protocol):
    """A unit of work in progress. `headers` carry its context to the consumers of its result."""

    @property
    def headers(self) -> list[tuple[str, bytes]]: ...

    def set_attributes(self, **about: str | int | float) -> None:
        """Set attributes. Traces leave the system: they must not contain text of users or
        applications.
        """

    def set_failed(self, kind: str) -> None:
        """Mark the span as failed, with the kind of error."""


class Tracing(Protocol):
    """Destination of spans. While `enabled` is false, calls have no effect."""

    @property
    def enabled(self) -> bool: ...

    def span(
        self,
        name: str,
        parent: Headers | str = (),
        *,
        traceparent: str | None = None,
        links: Iterable[str] = (),
        start_time: datetime | None = None,
    ) -> AbstractContextManager[Span]:
        """Run the body as a span, marked as failed when an exception leaves it.

        `parent` is a traceparent or headers with one; without it a trace begins. `traceparent`
        fixes the ids of the span itself where other services have to know them. The span starts at
        `start_time`, or now.
        """

    def close(self) -> None:
        """Flush pending spans."""


class _NoSpan:
    headers: list[tuple[str, bytes]] = []  # noqa: RUF012 (never changed)

    def set_attributes(self, **about: str | int | float) -> None:
        pass

    def set_failed(self, kind: str) -> None:
        pass


class NoopTracing:
    """Tracing that does nothing."""

    enabled = False

    def __init__(self) -> None:
        self._span: AbstractContextManager[Span] = nullcontext(_NoSpan())

    def span(
        self,
        name: str,
        parent: Headers | str = (),
        *,
        traceparent: str | None = None,
        links: Iterable[str] = (),
        start_time: datetime | None = None,
    ) -> AbstractContextManager[Span]:
        return self._span

    def close(self) -> None:
        pass


NOOP_TRACING = NoopTracing()


def create_tracing(service: str, traces: Endpoint | None) -> Tracing:
    """Return the tracing of a service: a no-op unless `traces` is set.

    Raises SettingsError when the extra is not installed.
    """
    if traces is None:
        return NOOP_TRACING
    try:
        from shared.observability.otlp import otlp_tracing
    except ImportError as error:
        raise SettingsError(
            f"RATCHET_TRACES needs the extra `traces`; run {install_command('traces')}"
        ) from error
    return otlp_tracing(service, str(traces))
