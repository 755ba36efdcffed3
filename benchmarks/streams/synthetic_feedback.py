"""Generated feedback for benchmarks: events of about 1 KB, each a function of its number."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from services.feedback.scoring import SOURCE, Policies, score
from shared.config.models import Models
from shared.events import Event, FeedbackReceived
from shared.identity import hash_fraction, identity
from shared.kafka.client import KafkaProducer
from shared.messaging.bus import Record
from shared.messaging.codec import encode
from shared.messaging.topics import FEEDBACK_RECEIVED

START = datetime(2026, 1, 1, tzinfo=UTC)
USERS = 500
EncodedRecord = tuple[bytes, bytes, list[tuple[str, bytes]]]
"""Key, value and headers of a record."""


def feedback(number: int, model: str) -> FeedbackReceived:
    """Return event `number`: of ten, six are thumbs up, two corrections, one is a thumb down and
    one a check. All texts differ.
    """
    kind = hash_fraction("kind", number)
    fields: dict[str, object] = {"feedback_type": "thumbs_up"}
    if kind < 0.2:
        fields = {"feedback_type": "correction", "corrected_output": _text("right", number, 40)}
    elif kind < 0.3:
        fields = {"feedback_type": "thumbs_down"}
    elif kind < 0.4:
        fields = {"feedback_type": "validation", "validation_score": 0.9}
    return FeedbackReceived.model_validate(
        {
            "event_id": f"load-{number}",
            "occurred_at": START + timedelta(milliseconds=number),
            "model": model,
            "input": _text("prompt", number, 40),
            "output": _text("answer", number, 40),
            "user_id": f"user-{int(hash_fraction('user', number) * USERS)}",
            "response_id": f"response-{number}",
        }
        | fields
    )


def received(count: int, models: Sequence[str]) -> Iterator[EncodedRecord]:
    """Yield records of `feedback.received`, spread over models and keys."""
    for number in range(count):
        event = feedback(number, models[number % len(models)])
        yield _record(f"key-{number % 64}", event)


def scored(count: int, models: Models, first: int = 0) -> Iterator[EncodedRecord]:
    """Yield records of `feedback.scored`: the same feedback, scored as by the feedback service."""
    names, policies = sorted(models.files), Policies(models)
    for number in range(first, first + count):
        event = feedback(number, names[number % len(names)])
        result = score(Record(FEEDBACK_RECEIVED, 0, number, None, *_as_received(event)), policies)
        yield _record(result.key, result.event)


async def fill(bootstrap_servers: str, topic: str, records: Iterator[EncodedRecord]) -> int:
    """Publish records on a topic, and return their number."""
    producer = KafkaProducer(bootstrap_servers)
    await producer.start()
    try:
        deliveries = [await producer.send_nowait(topic, *record) for record in records]
        for delivery in deliveries:
            await delivery
    finally:
        await producer.stop()
    return len(deliveries)


def write_models(folder: Path, count: int, batch_size: int) -> list[str]:
    """Write model files that differ only in their names; the streams services read no base."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"model-{number}" for number in range(count)]
    for name in names:
        (folder / f"{name}.yaml").write_text(
            f"model: {name}\nbase: {{training: base, serving: base.gguf}}\ncuration: "
            f"{{batch_size: {batch_size}}}\n"
        )
    return names


def _as_received(event: FeedbackReceived) -> tuple[bytes, tuple[tuple[str, bytes], ...]]:
    value, headers = encode(event, "/load")
    return value, tuple(headers)


def _record(key: str, event: Event) -> EncodedRecord:
    value, headers = encode(event, SOURCE if not isinstance(event, FeedbackReceived) else "/load")
    return key.encode(), value, headers


def _text(kind: str, number: int, words: int) -> str:
    return " ".join(identity(kind, number, at)[:6] for at in range(words))
