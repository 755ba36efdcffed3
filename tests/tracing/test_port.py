"""What is read as a traceparent, what a service without traces does, and the spans of the real
thing.
"""

import asyncio
import sys
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.trace import StatusCode
from pydantic import TypeAdapter

from shared.config.settings import ServiceSettings, read
from shared.errors import SettingsError
from shared.messaging.codec import Headers
from shared.observability.trace_context import place_of_batch, place_of_version, traceparent_in
from shared.observability.tracing import UNTRACED, Endpoint, tracing
from tests.tracing.spans import Spans, links, parent, place, trace

T, S = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAID = f"00-{T}-{S}-01"
TRACES = Spans().of("feedback")
ENDPOINT: Endpoint = TypeAdapter(Endpoint).validate_python("http://127.0.0.1:9/v1/traces")


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([], None),
        ([("traceparent", SAID.encode())], SAID),
        ([("ce_traceparent", SAID.encode())], SAID),
        ([("Traceparent", SAID.encode())], SAID),
        ([("traceparent", f"00-{T}-{S}-00".encode())], f"00-{T}-{S}-00"),
        ([("traceparent", f"01-{T}-{S}-01-more".encode())], f"01-{T}-{S}-01"),
        (
            [("traceparent", SAID.replace("4bf", "5bf").encode()), ("traceparent", SAID.encode())],
            SAID,
        ),
        ([("traceparent", SAID.encode()), ("traceparent", b"none")], SAID),
        ([("traceparent", None)], None),
        ([("tracestate", SAID.encode())], None),
        ([("traceparent", b"")], None),
        ([("traceparent", SAID.upper().encode())], None),
        ([("traceparent", SAID[:-1].encode())], None),
        ([("traceparent", f"{SAID}0".encode())], None),
        ([("traceparent", f"ff-{T}-{S}-01".encode())], None),
        ([("traceparent", f"00-{'0' * 32}-{S}-01".encode())], None),
        ([("traceparent", f"00-{T}-{'0' * 16}-01".encode())], None),
    ],
)
def test_what_is_read_from_headers(headers: Headers, found: str | None) -> None:
    assert traceparent_in(headers) == found


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["traceparent", "ce_traceparent", "x"]),
            st.none() | st.binary(max_size=80),
        )
    )
)
def test_whatever_strangers_write_is_read_without_complaint(headers: Headers) -> None:
    with TRACES.span("score", headers) as span:
        assert traceparent_in(span.headers)


@settings(deadline=None)
@given(st.text(), st.text())
def test_places_are_functions_of_ids_and_read_like_others(batch: str, run: str) -> None:
    places = [place_of_batch(batch), place_of_version(batch, run)]
    assert places == [place_of_batch(batch), place_of_version(batch, run)]
    assert [traceparent_in([("traceparent", said.encode())]) for said in places] == places
    assert trace(places[0]) == trace(places[1])
    assert places[0] != places[1]


def test_a_service_traces_nothing_unless_it_is_told_where_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert tracing("feedback", read(ServiceSettings).traces) is UNTRACED
    with UNTRACED.span("score", [("traceparent", SAID.encode())]) as span:
        span.note(model="m")
        span.failed("Undecodable")
        assert span.headers == []
    monkeypatch.setenv("RATCHET_TRACES", str(ENDPOINT))
    assert read(ServiceSettings).traces == ENDPOINT
    monkeypatch.setenv("RATCHET_TRACES", "localhost:4318")
    with pytest.raises(SettingsError, match="RATCHET_TRACES"):
        read(ServiceSettings)


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shared.observability.otlp", None)
    with pytest.raises(SettingsError, match=r"ratchet\[traces\]"):
        tracing("feedback", ENDPOINT)


def test_a_span_follows_what_its_record_names_and_tells_of_itself() -> None:
    spans = Spans()
    with spans.of("feedback").span("score", [("ce_traceparent", SAID.encode())]) as span:
        span.note(model="m", count=3)
        said = span.headers
    done = spans.one("score")
    assert parent(done) == SAID
    assert said == [("traceparent", place(done).encode())]
    assert trace(place(done)) == T
    assert dict(done.attributes or {}) == {"ratchet.model": "m", "ratchet.count": 3}
    assert done.resource.attributes["service.name"] == "ratchet-feedback"


def test_what_was_not_sampled_is_not_kept_and_goes_on_unsampled() -> None:
    spans = Spans()
    with spans.of("feedback").span("score", f"00-{T}-{S}-00") as span:
        (header,) = span.headers
    assert spans.names == []
    assert header[1].startswith(f"00-{T}-".encode())
    assert header[1].endswith(b"-00")


def test_a_span_takes_the_place_that_it_is_given_and_links_to_all_that_it_is_made_of() -> None:
    spans = Spans()
    members = [place_of_version("b", str(number)) for number in range(500)]
    with spans.of("dataset").span("batch", at=place_of_batch("b"), links=members) as span:
        assert span.headers == [("traceparent", place_of_batch("b").encode())]
    done = spans.one("batch")
    assert (place(done), parent(done)) == (place_of_batch("b"), None)
    assert links(done) == members


def test_a_span_of_what_went_before_began_then() -> None:
    spans = Spans()
    since = datetime.now(UTC) - timedelta(seconds=9)
    with spans.of("registry").span("deploy", since=since):
        pass
    done = spans.one("deploy")
    assert done.start_time is not None
    assert done.end_time is not None
    assert 9e9 < done.end_time - done.start_time < 19e9


def test_what_an_exception_leaves_has_failed_and_says_no_more_than_its_kind() -> None:
    spans = Spans()
    with pytest.raises(ValueError, match="secret"), spans.of("feedback").span("score"):
        raise ValueError("secret")
    done = spans.one("score")
    assert (done.status.status_code, done.status.description) == (StatusCode.ERROR, "ValueError")
    assert not done.events


async def test_spans_of_tasks_beside_each_other_do_not_mix() -> None:
    spans = Spans()
    traces = spans.of("registry")

    async def one(number: int) -> None:
        with traces.span("outer", at=place_of_batch(str(number))) as span:
            await asyncio.sleep(0)
            with traces.span("inner", span.headers):
                await asyncio.sleep(0)

    await asyncio.gather(*(one(number) for number in range(9)))
    assert [parent(span) for span in spans.named("inner")] == [
        place_of_batch(str(number)) for number in range(9)
    ]


def test_a_collector_that_is_away_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    traces = tracing("feedback", ENDPOINT)
    assert traces is not UNTRACED
    began = datetime.now(UTC)
    for _ in range(5000):
        with traces.span("score"):
            pass
    traces.close()
    assert datetime.now(UTC) - began < timedelta(seconds=10)
