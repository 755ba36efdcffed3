"""Tracing with real services, a real broker and a collector: one trace from the sender to the
score, and a batch that links to fifty scores.
"""

import asyncio
import json
from contextlib import aclosing
from pathlib import Path
from uuid import uuid4

import pytest

from shared.events import BatchReady, FeedbackReceived
from shared.identity import identity
from shared.messaging.bus import Record
from shared.messaging.codec import decode, encode
from shared.messaging.topics import FEEDBACK_RECEIVED, FEEDBACK_SCORED, TRAINING_BATCHES
from shared.observability.trace_context import traceparent_for_batch, traceparent_in
from tests.support.scored_feedback import words
from tests.support.service_process import Headers, ServiceProcess, read, send
from tests.tracing.collector import collecting
from tests.tracing.spans import trace_id

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]

COUNT = 50


def sender(model: str, number: int) -> str:
    return f"00-{identity(model, number)}-{identity('span', model, number)[:16]}-01"


def feedback_message(model: str, number: int) -> tuple[bytes | None, bytes | None, Headers]:
    """Odd numbers are CloudEvents in binary mode, with the extension for trace context."""
    event = {
        "event_id": f"{model}-{number}",
        "occurred_at": "2026-01-01T00:00:00Z",
        "model": model,
        "feedback_type": "thumbs_up",
    }
    event |= {
        "input": words(f"{model} prompt {number}"),
        "output": words(f"{model} answer {number}"),
        "user_id": f"u{number}",
    }
    if number % 2 == 0:
        return (
            model.encode(),
            json.dumps(event).encode(),
            [("traceparent", sender(model, number).encode())],
        )
    value, headers = encode(FeedbackReceived.model_validate(event), "/test")
    return model.encode(), value, [*headers, ("ce_traceparent", sender(model, number).encode())]


async def records_of_model(broker: str, topic: str, model: str, count: int) -> list[Record]:
    records_of_the_model: list[Record] = []
    async with aclosing(read(broker, topic)) as records:
        async for record in records:
            if record.key == model.encode():
                records_of_the_model.append(record)
            if len(records_of_the_model) == count:
                break
    return records_of_the_model


async def test_one_trace_to_the_score_and_a_batch_with_fifty_links(
    broker: str, tmp_path: Path
) -> None:
    model = f"m{uuid4().hex[:8]}"
    (tmp_path / "models").mkdir()
    # Nothing is redacted: some of the random words look like telephone numbers.
    declared = (
        f"model: {model}\nbase: {{training: base, serving: base.gguf}}\ncuration: "
        "{held_out_share: 0}\nredaction: {kinds: []}\n"
    )
    (tmp_path / "models" / f"{model}.yaml").write_text(declared)
    with collecting() as collector:
        services = [
            ServiceProcess(
                name,
                broker,
                tmp_path,
                RATCHET_TRACES=collector.endpoint,
                **{f"RATCHET_{name.upper()}_GROUP": f"{name}-{model}"},
            )
            for name in ("feedback", "dataset")
        ]
        for service in services:
            service.launch()
        try:
            await asyncio.gather(
                *(service.wait_until(service.is_ready, "ready") for service in services)
            )
            await send(
                broker,
                FEEDBACK_RECEIVED,
                [feedback_message(model, number) for number in range(COUNT)],
            )
            scored = await records_of_model(broker, FEEDBACK_SCORED, model, COUNT)
            (announced,) = await records_of_model(broker, TRAINING_BATCHES, model, 1)
        finally:
            statuses = [service.stop() for service in services]
        assert statuses == [0, 0], [service.log for service in services]

        score_traceparents = [traceparent_in(record.headers) or "" for record in scored]
        assert [trace_id(traceparent) for traceparent in score_traceparents] == [
            trace_id(sender(model, number)) for number in range(COUNT)
        ]
        senders = {
            trace_id(sender(model, number)) for number in range(COUNT)
        }  # other tests send feedback to this broker
        scores = [
            span
            for span in collector.spans_named("ratchet-feedback", "score")
            if span.trace_id.hex() in senders
        ]
        parents = [f"00-{span.trace_id.hex()}-{span.parent_span_id.hex()}-01" for span in scores]
        assert parents == [sender(model, number) for number in range(COUNT)]
        assert [
            f"00-{span.trace_id.hex()}-{span.span_id.hex()}-01" for span in scores
        ] == score_traceparents

        (batch,) = collector.spans_named("ratchet-dataset", "batch")
        ready = decode(announced.value, announced.headers, BatchReady).event
        assert (
            traceparent_in(announced.headers)
            == f"00-{batch.trace_id.hex()}-{batch.span_id.hex()}-01"
            == traceparent_for_batch(ready.batch_id)
        )
        assert [
            f"00-{link.trace_id.hex()}-{link.span_id.hex()}-01" for link in batch.links
        ] == score_traceparents
        assert batch.dropped_links_count == 0
