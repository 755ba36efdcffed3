"""Traces as a port: what one record leads to, as spans that follow each other across services.

    feedback.received ─▶ score ─▶ feedback.scored            the trace of whoever sent the feedback, if they said which
                           ┆ (links)
                         batch ─▶ train ─▶ register ─▶ deploy      the trace of a batch

A span is told to the next service by the W3C header `traceparent` (https://www.w3.org/TR/trace-context/). The trace of a batch is a
function of the batch's id, and so are the places that others go on from: whoever closes a batch again, or deploys a version after a
restart, says the same without anything having been kept for it.

`Untraced` is what a service has that is not asked for traces: it costs next to nothing. OpenTelemetry is in `shared/otlp.py`.
"""

import re
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import Annotated, Protocol

from pydantic import AnyHttpUrl, Field, UrlConstraints

from shared.codec import Headers
from shared.errors import SettingsError
from shared.identity import identity

TRACEPARENT = "traceparent"

Endpoint = Annotated[AnyHttpUrl, UrlConstraints(allowed_schemes=["http", "https"])]
Traces = Annotated[
    Endpoint | None,
    Field(description="where traces go, by OTLP over HTTP, such as http://127.0.0.1:4318/v1/traces; needs the extra `traces`"),
]

_NAMES = frozenset({TRACEPARENT, "ce_" + TRACEPARENT})
# Version ff is forbidden, and so are ids of zeros; later versions may have more behind what is known of the first.
_FORM = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-|$)")
_LENGTH = 55


class Span(Protocol):
    """Something that is being done. `headers` tell of it to whoever reads what comes of it."""

    @property
    def headers(self) -> list[tuple[str, bytes]]: ...

    def note(self, **about: str | int | float) -> None:
        """What it is about. Traces go to others: nothing that users or applications said belongs here."""

    def failed(self, kind: str) -> None:
        """It came to nothing."""


class Tracing(Protocol):
    """Where spans go. While `on` is false nothing that is said here has an effect."""

    @property
    def on(self) -> bool: ...

    def span(
        self, name: str, after: Headers | str = (), *, at: str | None = None, links: Iterable[str] = (), since: datetime | None = None
    ) -> AbstractContextManager[Span]:
        """The body as a span, failed where an exception leaves it. It follows the one that headers or a traceparent name, or begins a
        trace. `at` is the place that it takes itself, where others have to know it; it began at `since`, or now."""

    def close(self) -> None:
        """Send what is left."""


class _NoSpan:
    headers: list[tuple[str, bytes]] = []  # noqa: RUF012 (nobody adds to them)

    def note(self, **about: str | int | float) -> None:
        pass

    def failed(self, kind: str) -> None:
        pass


class Untraced:
    """Nothing is traced."""

    on = False

    def __init__(self) -> None:
        self._span: AbstractContextManager[Span] = nullcontext(_NoSpan())

    def span(
        self, name: str, after: Headers | str = (), *, at: str | None = None, links: Iterable[str] = (), since: datetime | None = None
    ) -> AbstractContextManager[Span]:
        return self._span

    def close(self) -> None:
        pass


UNTRACED = Untraced()


def tracing(service: str, traces: Endpoint | None) -> Tracing:
    """What a service traces with: nothing unless `traces` says where to. Raises SettingsError when the extra is not installed."""
    if traces is None:
        return UNTRACED
    try:
        from shared.otlp import exported
    except ImportError as error:
        raise SettingsError("RATCHET_TRACES needs the extra `traces`; type: pip install 'ratchet[traces]'") from error
    return exported(service, str(traces))


def traceparent_in(headers: Headers) -> str | None:
    """The span that a record came from, where its headers say so; the last of several counts, and one that is none is as good as absent."""
    for name, value in reversed(headers):
        if value is not None and name.lower() in _NAMES and _FORM.match(value):
            return value[:_LENGTH].decode()
    return None


def place_of_batch(batch_id: str) -> str:
    """The traceparent of a batch, with which its trace begins."""
    return _place(batch_id, "batch", batch_id)


def place_of_version(batch_id: str, run_id: str) -> str:
    """The traceparent of the registry's first answer to the run that made a version of a batch."""
    return _place(batch_id, "register", run_id)


def _place(batch_id: str, *what: str) -> str:
    return f"00-{identity('trace', batch_id)}-{identity('span', *what)[:16]}-01"
