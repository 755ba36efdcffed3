"""In-memory span exporter, and accessors for traceparents."""

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shared.observability.otlp import OpenTelemetryTracing


class Spans:
    """Spans of several services, in the order in which they ended."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()

    def tracing_for(self, service: str) -> OpenTelemetryTracing:
        """Return the tracing of a service."""
        return OpenTelemetryTracing(service, SimpleSpanProcessor(self._exporter))

    @property
    def names(self) -> list[str]:
        return [span.name for span in self._exporter.get_finished_spans()]

    def spans_named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if span.name == name]

    def only(self, name: str) -> ReadableSpan:
        (span,) = self.spans_named(name)
        return span


def traceparent_of(span: ReadableSpan) -> str:
    """Return the traceparent of a span."""
    context = span.get_span_context()
    assert context is not None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


def parent_traceparent(span: ReadableSpan) -> str | None:
    """Return the traceparent of a span's parent."""
    parent = span.parent
    return (
        None
        if parent is None
        else f"00-{parent.trace_id:032x}-{parent.span_id:016x}-{int(parent.trace_flags):02x}"
    )


def link_traceparents(span: ReadableSpan) -> list[str]:
    return [
        f"00-{link.context.trace_id:032x}-{link.context.span_id:016x}-01" for link in span.links
    ]


def trace_id(traceparent: str) -> str:
    return traceparent.split("-")[1]
