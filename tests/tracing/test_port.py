"""Parsing of traceparents, tracing that is off, and the spans of OpenTelemetry."""

import asyncio
import sys
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.trace import StatusCode
from pydantic import TypeAdapter

from shared.config.settings import ServiceSettings, read_settings
from shared.errors import SettingsError
from shared.messaging.codec import Headers
from shared.observability.trace_context import (
    traceparent_for_batch,
    traceparent_for_version,
    traceparent_in,
)
from shared.observability.tracing import NOOP_TRACING, Endpoint, create_tracing
from tests.tracing.spans import (
    Spans,
    link_traceparents,
    parent_traceparent,
    trace_id,
    traceparent_of,
)

T, S = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{T}-{S}-01"
TRACES = Spans().tracing_for("feedback")
ENDPOINT: Endpoint = TypeAdapter(Endpoint).validate_python("http://127.0.0.1:9/v1/traces")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], None),
        ([("traceparent", TRACEPARENT.encode())], TRACEPARENT),
        ([("ce_traceparent", TRACEPARENT.encode())], TRACEPARENT),
        ([("Traceparent", TRACEPARENT.encode())], TRACEPARENT),
        ([("traceparent", f"00-{T}-{S}-00".encode())], f"00-{T}-{S}-00"),
        ([("traceparent", f"01-{T}-{S}-01-more".encode())], f"01-{T}-{S}-01"),
        (
            [
                ("traceparent", TRACEPARENT.replace("4bf", "5bf").encode()),
                ("traceparent", TRACEPARENT.encode()),
            ],
            TRACEPARENT,
        ),
        ([("traceparent", TRACEPARENT.encode()), ("traceparent", b"none")], TRACEPARENT),
        ([("traceparent", None)], None),
        ([("tracestate", TRACEPARENT.encode())], None),
        ([("traceparent", b"")], None),
        ([("traceparent", TRACEPARENT.upper().encode())], None),
        ([("traceparent", TRACEPARENT[:-1].encode())], None),
        ([("traceparent", f"{TRACEPARENT}0".encode())], None),
        ([("traceparent", f"ff-{T}-{S}-01".encode())], None),
        ([("traceparent", f"00-{'0' * 32}-{S}-01".encode())], None),
        ([("traceparent", f"00-{T}-{'0' * 16}-01".encode())], None),
    ],
)
def test_traceparents_in_headers(headers: Headers, expected: str | None) -> None:
    assert traceparent_in(headers) == expected


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["traceparent", "ce_traceparent", "x"]),
            st.none() | st.binary(max_size=80),
        )
    )
)
def test_arbitrary_headers_never_raise(headers: Headers) -> None:
    with TRACES.span("score", headers) as span:
        assert traceparent_in(span.headers)


@settings(deadline=None)
@given(st.text(), st.text())
def test_deterministic_traceparents_are_valid(batch: str, run: str) -> None:
    traceparents = [traceparent_for_batch(batch), traceparent_for_version(batch, run)]
    assert traceparents == [traceparent_for_batch(batch), traceparent_for_version(batch, run)]
    assert [
        traceparent_in([("traceparent", traceparent.encode())]) for traceparent in traceparents
    ] == traceparents
    assert trace_id(traceparents[0]) == trace_id(traceparents[1])
    assert traceparents[0] != traceparents[1]


def test_tracing_is_off_by_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert create_tracing("feedback", read_settings(ServiceSettings).traces) is NOOP_TRACING
    with NOOP_TRACING.span("score", [("traceparent", TRACEPARENT.encode())]) as span:
        span.set_attributes(model="m")
        span.set_failed("Undecodable")
        assert span.headers == []
    monkeypatch.setenv("RATCHET_TRACES", str(ENDPOINT))
    assert read_settings(ServiceSettings).traces == ENDPOINT
    monkeypatch.setenv("RATCHET_TRACES", "localhost:4318")
    with pytest.raises(SettingsError, match="RATCHET_TRACES"):
        read_settings(ServiceSettings)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shared.observability.otlp", None)
    with pytest.raises(SettingsError, match=r"pip install '\.\[traces\]'"):
        create_tracing("feedback", ENDPOINT)


def test_a_span_has_the_parent_in_its_record() -> None:
    spans = Spans()
    with spans.tracing_for("feedback").span(
        "score", [("ce_traceparent", TRACEPARENT.encode())]
    ) as span:
        span.set_attributes(model="m", count=3)
        headers = span.headers
    exported = spans.only("score")
    assert parent_traceparent(exported) == TRACEPARENT
    assert headers == [("traceparent", traceparent_of(exported).encode())]
    assert trace_id(traceparent_of(exported)) == T
    assert dict(exported.attributes or {}) == {"ratchet.model": "m", "ratchet.count": 3}
    assert exported.resource.attributes["service.name"] == "ratchet-feedback"


def test_an_unsampled_trace_stays_unsampled() -> None:
    spans = Spans()
    with spans.tracing_for("feedback").span("score", f"00-{T}-{S}-00") as span:
        (header,) = span.headers
    assert spans.names == []
    assert header[1].startswith(f"00-{T}-".encode())
    assert header[1].endswith(b"-00")


def test_a_span_takes_a_given_traceparent_and_links() -> None:
    spans = Spans()
    members = [traceparent_for_version("b", str(number)) for number in range(500)]
    with spans.tracing_for("dataset").span(
        "batch", traceparent=traceparent_for_batch("b"), links=members
    ) as span:
        assert span.headers == [("traceparent", traceparent_for_batch("b").encode())]
    exported = spans.only("batch")
    assert (traceparent_of(exported), parent_traceparent(exported)) == (
        traceparent_for_batch("b"),
        None,
    )
    assert link_traceparents(exported) == members


def test_a_span_may_start_in_the_past() -> None:
    spans = Spans()
    since = datetime.now(UTC) - timedelta(seconds=9)
    with spans.tracing_for("registry").span("deploy", start_time=since):
        pass
    exported = spans.only("deploy")
    assert exported.start_time is not None
    assert exported.end_time is not None
    assert 9e9 < exported.end_time - exported.start_time < 19e9


def test_an_exception_marks_the_span_with_its_kind_only() -> None:
    spans = Spans()
    with pytest.raises(ValueError, match="secret"), spans.tracing_for("feedback").span("score"):
        raise ValueError("secret")
    exported = spans.only("score")
    assert (exported.status.status_code, exported.status.description) == (
        StatusCode.ERROR,
        "ValueError",
    )
    assert not exported.events


async def test_spans_of_concurrent_tasks_do_not_mix() -> None:
    spans = Spans()
    traces = spans.tracing_for("registry")

    async def run_nested_spans(number: int) -> None:
        with traces.span("outer", traceparent=traceparent_for_batch(str(number))) as span:
            await asyncio.sleep(0)
            with traces.span("inner", span.headers):
                await asyncio.sleep(0)

    await asyncio.gather(*(run_nested_spans(number) for number in range(9)))
    assert [parent_traceparent(span) for span in spans.spans_named("inner")] == [
        traceparent_for_batch(str(number)) for number in range(9)
    ]


def test_an_unavailable_collector_does_not_block(monkeypatch: pytest.MonkeyPatch) -> None:
    traces = create_tracing("feedback", ENDPOINT)
    assert traces is not NOOP_TRACING
    started = datetime.now(UTC)
    for _ in range(5000):
        with traces.span("score"):
            pass
    traces.close()
    assert datetime.now(UTC) - started < timedelta(seconds=10)
