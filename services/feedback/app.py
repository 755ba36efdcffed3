"""The service's shell: a Faust agent that consumes raw records and publishes scored events,
withdrawal requests or dead letters.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol, get_args

import faust

from services.feedback.erasure import KeyedRequest, decode_user_forgotten, withdrawal_requests
from services.feedback.scoring import SOURCE, Policies, ScoredFeedback, score
from shared.errors import Unprocessable
from shared.events import FeedbackType
from shared.failpoints import reach
from shared.kafka.streams import OffsetCommitter, record_of, source_topic
from shared.messaging.bus import BufferedProducer, Producer, Record, send_dead_letter
from shared.messaging.codec import encode
from shared.messaging.topics import FEEDBACK_RECEIVED, FEEDBACK_SCORED
from shared.observability.health import Health
from shared.observability.tracing import Span
from shared.service.runtime import Runtime


class FeedbackProducer(Producer, BufferedProducer, Protocol):
    """The producer of results and dead letters."""


class FeedbackHandler:
    """Handles one record at a time; several deliveries may be in flight."""

    def __init__(self, policies: Policies, producer: FeedbackProducer, runtime: Runtime) -> None:
        self._policies = policies
        self._producer = producer
        self._clock = runtime.clock
        self._log = runtime.log
        self._metrics = runtime.metrics
        self._tracing = runtime.tracing
        self._init_metrics()

    def _init_metrics(self) -> None:
        metrics = self._metrics
        metrics.init_series("ratchet_dead_letters_total", topic=FEEDBACK_RECEIVED)
        for error in Unprocessable.__subclasses__():
            metrics.init_series("ratchet_feedback_refused_total", reason=error.__name__)
        for policy in self._policies:
            model = policy.file.model
            for direction in ("gained", "lost"):
                metrics.init_series(f"ratchet_feedback_reward_{direction}_total", model=model)
            for feedback_type in get_args(FeedbackType):
                metrics.init_series(
                    "ratchet_feedback_received_total", model=model, feedback_type=feedback_type
                )

    async def handle(self, record: Record) -> Any:
        """Publish the result of one record. Returns an awaitable that ends when it is durable."""
        with self._tracing.span("score", record.headers) as span:
            return await self._handle(record, span)

    async def _handle(self, record: Record, span: Span) -> Any:
        try:
            scored = self._process(record)
            if isinstance(scored, list):
                return await self._publish_requests(scored, span)
            value, headers = encode(scored.event, SOURCE)
        except Unprocessable as error:
            span.set_failed(type(error).__name__)
            self._log.warning(
                "dead letter", partition=record.partition, offset=record.offset, reason=str(error)
            )
            self._metrics.count("ratchet_dead_letters_total", topic=record.topic)
            self._metrics.count("ratchet_feedback_refused_total", reason=type(error).__name__)
            return send_dead_letter(self._producer, record, error, "feedback", self._clock)
        span.set_attributes(model=scored.event.model, feedback_type=scored.event.feedback_type)
        self._count(scored)
        await reach("feedback.scored")
        return await self._producer.send_nowait(
            FEEDBACK_SCORED, scored.key.encode(), value, [*headers, *span.headers]
        )

    def _process(self, record: Record) -> ScoredFeedback | list[KeyedRequest]:
        """Return the scored feedback of a record, or the withdrawal requests of a `UserForgotten`.
        Raises Unprocessable for a permanent error.
        """
        if forgotten := decode_user_forgotten(record):
            return withdrawal_requests(forgotten, record.position, self._policies)
        return score(record, self._policies)

    def _count(self, scored: ScoredFeedback) -> None:
        event, metrics = scored.event, self._metrics
        metrics.count(
            "ratchet_feedback_received_total", model=event.model, feedback_type=event.feedback_type
        )
        metrics.observe("ratchet_feedback_reward", event.reward, model=event.model)
        # Two counters, because a counter cannot fall and a histogram with buckets below zero has no
        # sum.
        direction = "gained" if event.reward >= 0 else "lost"
        metrics.count(
            f"ratchet_feedback_reward_{direction}_total", abs(event.reward), model=event.model
        )
        for kind, count in scored.redactions.items():
            metrics.count("ratchet_feedback_redactions_total", count, model=event.model, kind=kind)

    async def _publish_requests(self, requests: Sequence[KeyedRequest], span: Span) -> Any:
        deliveries = []
        for request in requests:
            value, headers = encode(request.event, SOURCE)
            deliveries.append(
                await self._producer.send_nowait(
                    FEEDBACK_SCORED, request.key.encode(), value, [*headers, *span.headers]
                )
            )
        self._log.info(
            "withdrawal requested", shards=len(requests), forgotten=requests[0].event.forgotten
        )
        return asyncio.gather(*deliveries)


def register_agent(
    app: faust.App, handler: FeedbackHandler, commits: OffsetCommitter, health: Health
) -> None:
    """Pass the records of `feedback.received` to `handler`, in a Faust agent of `app`."""

    async def on_ready(*args: Any, **kwargs: Any) -> None:
        health.mark_ready()

    async def score_feedback(stream: Any) -> None:
        async for events in stream.take_events(500, within=0.02):
            try:
                for event in events:
                    await commits.commit_after(event, await handler.handle(record_of(event)))
            except Exception as error:
                # Faust itself would restart the stream after the record that failed, and skip it.
                await app.crash(error)
                return

    app.on_rebalance_complete.connect(on_ready, weak=False)
    app.agent(source_topic(app, FEEDBACK_RECEIVED), concurrency=1, name="score_feedback")(
        score_feedback
    )
