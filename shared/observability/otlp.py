"""OpenTelemetry traces, exported by OTLP over HTTP. The only module that imports OpenTelemetry.

Its own variables apply as well: OTEL_TRACES_SAMPLER and its argument, OTEL_EXPORTER_OTLP_HEADERS,
OTEL_RESOURCE_ATTRIBUTES.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from threading import Timer

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from shared.messaging.codec import Headers
from shared.observability.trace_context import TRACEPARENT, traceparent_in
from shared.version import ratchet_version

# A batch links to each of its events; the model file determines their number.
_MOST_LINKS = 10_000

_CLOSING_SECONDS = 3.0

_next: ContextVar[SpanContext | None] = ContextVar(
    "the place that the next span takes", default=None
)


class OpenTelemetryTracing:
    """Tracing that passes spans to a span processor."""

    enabled = True

    def __init__(self, service: str, processor: SpanProcessor) -> None:
        self._provider = TracerProvider(
            resource=Resource.create(
                {"service.name": f"ratchet-{service}", "service.version": ratchet_version()}
            ),
            id_generator=_FixedOrRandomIds(),
            span_limits=SpanLimits(max_links=_MOST_LINKS),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("ratchet")

    @contextmanager
    def span(
        self,
        name: str,
        parent: Headers | str = (),
        *,
        traceparent: str | None = None,
        links: Iterable[str] = (),
        start_time: datetime | None = None,
    ) -> Iterator["_OtelSpan"]:
        before = parent if isinstance(parent, str) else traceparent_in(parent)
        context = (
            set_span_in_context(NonRecordingSpan(_context(before)), Context())
            if before
            else Context()
        )
        token = _next.set(_context(traceparent) if traceparent else None)
        try:
            raw = self._tracer.start_span(
                name,
                context,
                links=[Link(_context(link)) for link in links],
                start_time=_nanoseconds(start_time) if start_time else None,
            )
        finally:
            _next.reset(token)
        span = _OtelSpan(raw)
        try:
            yield span
        except BaseException as error:
            span.set_failed(type(error).__name__)
            raise
        finally:
            raw.end()

    def close(self) -> None:
        self._provider.shutdown()


class _OtelSpan:
    def __init__(self, raw: Span) -> None:
        self._raw = raw

    @property
    def headers(self) -> list[tuple[str, bytes]]:
        context = self._raw.get_span_context()
        flags = context.trace_flags & 1
        value = f"00-{context.trace_id:032x}-{context.span_id:016x}-{flags:02x}"
        return [(TRACEPARENT, value.encode())]

    def set_attributes(self, **about: str | int | float) -> None:
        self._raw.set_attributes({f"ratchet.{name}": value for name, value in about.items()})

    def set_failed(self, kind: str) -> None:
        self._raw.set_status(Status(StatusCode.ERROR, kind))


class _BoundedShutdownProcessor(BatchSpanProcessor):
    """Background exporter that gives up some seconds after shutdown begins; the library would retry
    for half a minute.
    """

    def __init__(self, exporter: OTLPSpanExporter) -> None:
        super().__init__(exporter)
        self._giving_up = Timer(_CLOSING_SECONDS, exporter.shutdown)
        self._giving_up.daemon = True

    def shutdown(self) -> None:
        self._giving_up.start()
        super().shutdown()  # type: ignore[no-untyped-call]  # the library gives it no types
        self._giving_up.cancel()


class _FixedOrRandomIds(RandomIdGenerator):
    """Random ids, except for a span whose traceparent is given."""

    def generate_span_id(self) -> int:
        place = _next.get()
        return place.span_id if place else super().generate_span_id()

    def generate_trace_id(self) -> int:
        place = _next.get()
        return place.trace_id if place else super().generate_trace_id()

    def is_trace_id_random(self) -> bool:
        return False


def otlp_tracing(service: str, endpoint: str) -> OpenTelemetryTracing:
    """Export spans to `endpoint` in the background.

    While the endpoint does not respond, spans are dropped with a line in the log.
    """
    return OpenTelemetryTracing(
        service, _BoundedShutdownProcessor(OTLPSpanExporter(endpoint=endpoint))
    )


def _context(traceparent: str) -> SpanContext:
    _, trace, span, flags = traceparent.split("-")
    return SpanContext(
        int(trace, 16), int(span, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16))
    )


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000) * 1000
