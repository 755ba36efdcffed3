"""Traces as a port: what one record leads to, as spans that follow each other across services.

    feedback.received ─▶ score ─▶ feedback.scored            the trace of whoever sent the feedback, if they said which
                           ┆ (links)
                         batch ─▶ train ─▶ register ─▶ deploy      the trace of a batch

A span is told to the next service by the W3C header `traceparent`
(https://www.w3.org/TR/trace-context/). The trace of a batch is a function of the batch's id, and so
are the places that others go on from: whoever closes a batch again, or deploys a version after a
restart, says the same without anything having been kept for it.

`Untraced` is what a service has that is not asked for traces: it costs next to nothing.
OpenTelemetry is in `shared/observability/otlp.py`.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import Annotated, Protocol

from pydantic import AnyHttpUrl, Field, UrlConstraints

from shared.errors import SettingsError
from shared.messaging.codec import Headers

Endpoint = Annotated[AnyHttpUrl, UrlConstraints(allowed_schemes=["http", "https"])]
TracesEndpoint = Annotated[
    Endpoint | None,
    Field(
        description="where traces go, by OTLP over HTTP, such as http://127.0.0.1:4318/v1/traces; needs "
        "the extra `traces`"
    ),
]


class Span(Protocol):
    """Something that is being done. `headers` tell of it to whoever reads what comes of it."""

    @property
    def headers(self) -> list[tuple[str, bytes]]: ...

    def set_attributes(self, **about: str | int | float) -> None:
        """What it is about. Traces go to others: nothing that users or applications said belongs
        here.
        """

    def set_failed(self, kind: str) -> None:
        """It came to nothing."""


class Tracing(Protocol):
    """Where spans go. While `on` is false nothing that is said here has an effect."""

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
        """The body as a span, failed where an exception leaves it. It follows the one that headers
        or a traceparent name, or begins a trace. `at` is the place that it takes itself, where
        others have to know it; it began at `since`, or now.
        """

    def close(self) -> None:
        """Send what is left."""


class _NoSpan:
    headers: list[tuple[str, bytes]] = []  # noqa: RUF012 (nobody adds to them)

    def set_attributes(self, **about: str | int | float) -> None:
        pass

    def set_failed(self, kind: str) -> None:
        pass


class NoopTracing:
    """Nothing is traced."""

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
    """What a service traces with: nothing unless `traces` says where to. Raises SettingsError when
    the extra is not installed.
    """
    if traces is None:
        return NOOP_TRACING
    try:
        from shared.observability.otlp import otlp_tracing
    except ImportError as error:
        raise SettingsError(
            "RATCHET_TRACES needs the extra `traces`; type: pip install 'ratchet[traces]'"
        ) from error
    return otlp_tracing(service, str(traces))
