"""The shell: a Faust stream of raw records in, scored events, requests to withdraw or dead letters
out.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol, get_args

import faust

from services.feedback.erasure import KeyedRequest, decode_user_forgotten, withdrawal_requests
from services.feedback.scoring import SOURCE, Policies, score
from shared.clock import Clock
from shared.errors import Unprocessable
from shared.events import FeedbackType
from shared.failpoints import reach
from shared.kafka.streams import OffsetCommitter, record_of, source_topic
from shared.logs import Log
from shared.messaging.bus import BufferedProducer, Producer, Record, send_dead_letter
from shared.messaging.codec import encode
from shared.messaging.topics import FEEDBACK_RECEIVED, FEEDBACK_SCORED
from shared.observability.health import Health
from shared.observability.metrics import Metrics
from shared.observability.tracing import NOOP_TRACING, Span, Tracing


class FeedbackProducer(Producer, BufferedProducer, Protocol):
    """Where results go."""


class FeedbackHandler:
    """Handles one record at a time; several deliveries may be under way."""

    def __init__(
        self,
        policies: Policies,
        producer: FeedbackProducer,
        metrics: Metrics,
        clock: Clock,
        log: Log,
        tracing: Tracing = NOOP_TRACING,
    ) -> None:
        self._policies = policies
        self._producer = producer
        self._metrics = metrics
        self._clock = clock
        self._log = log
        metrics.init_series("ratchet_dead_letters_total", topic=FEEDBACK_RECEIVED)
        for error in Unprocessable.__subclasses__():
            metrics.init_series("ratchet_feedback_refused_total", reason=error.__name__)
        for policy in policies:
            for moved in ("gained", "lost"):
                metrics.init_series(
                    f"ratchet_feedback_reward_{moved}_total", model=policy.file.model
                )
            for feedback_type in get_args(FeedbackType):
                metrics.init_series(
                    "ratchet_feedback_received_total",
                    model=policy.file.model,
                    feedback_type=feedback_type,
                )
        self._tracing = tracing

    async def handle(self, record: Record) -> Any:
        """Put what a record becomes on the bus; what is returned is awaited until it is durable."""
        with self._tracing.span("score", record.headers) as span:
            return await self._handle(record, span)

    async def _handle(self, record: Record, span: Span) -> Any:
        try:
            if forgotten := decode_user_forgotten(record):
                return await self._request(
                    withdrawal_requests(forgotten, record.position, self._policies), span
                )
            scored = score(record, self._policies)
            value, headers = encode(scored.event, SOURCE)
        except Unprocessable as error:
            span.set_failed(type(error).__name__)
            self._log.warning(
                "dead letter", partition=record.partition, offset=record.offset, reason=str(error)
            )
            self._metrics.count("ratchet_dead_letters_total", topic=record.topic)
            self._metrics.count("ratchet_feedback_refused_total", reason=type(error).__name__)
            return send_dead_letter(self._producer, record, error, "feedback", self._clock)
        event = scored.event
        span.set_attributes(model=event.model, feedback_type=event.feedback_type)
        self._metrics.count(
            "ratchet_feedback_received_total", model=event.model, feedback_type=event.feedback_type
        )
        self._metrics.observe("ratchet_feedback_reward", event.reward, model=event.model)
        # A sum that may fall is no counter, and a histogram with buckets below zero has none.
        moved = "gained" if event.reward >= 0 else "lost"
        self._metrics.count(
            f"ratchet_feedback_reward_{moved}_total", abs(event.reward), model=event.model
        )
        for kind, count in scored.redactions.items():
            self._metrics.count(
                "ratchet_feedback_redactions_total", count, model=event.model, kind=kind
            )
        await reach("feedback.scored")
        return await self._producer.send_nowait(
            FEEDBACK_SCORED, scored.key.encode(), value, [*headers, *span.headers]
        )

    async def _request(self, requests: Sequence[KeyedRequest], span: Span) -> Any:
        begun = []
        for request in requests:
            value, headers = encode(request.event, SOURCE)
            begun.append(
                await self._producer.send_nowait(
                    FEEDBACK_SCORED, request.key.encode(), value, [*headers, *span.headers]
                )
            )
        self._log.info(
            "withdrawal requested", shards=len(requests), forgotten=requests[0].event.forgotten
        )
        return asyncio.gather(*begun)


def register_agent(
    app: faust.App, feedback: FeedbackHandler, commits: OffsetCommitter, health: Health
) -> None:
    """Let `app` feed the records of `feedback.received` to `feedback`."""

    async def on_ready(*args: Any, **kwargs: Any) -> None:
        health.mark_ready()

    async def score_feedback(stream: Any) -> None:
        async for events in stream.take_events(500, within=0.02):
            try:
                for event in events:
                    await commits.commit_after(event, await feedback.handle(record_of(event)))
            except Exception as error:
                # Left to Faust, an exception would only restart the stream behind the record that
                # caused it.
                await app.crash(error)
                return

    app.on_rebalance_complete.connect(on_ready, weak=False)
    app.agent(source_topic(app, FEEDBACK_RECEIVED), concurrency=1, name="score_feedback")(
        score_feedback
    )
