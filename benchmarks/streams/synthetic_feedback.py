"""Feedback to measure with: what applications send, some 1 KB each, a function of a number."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from services.feedback.scoring import SOURCE, Policies, score
from shared.config.model_file import Models
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
    """Of ten: six thumbs up, two corrections, a thumb down and a check. No two texts are alike."""
    kind = hash_fraction("kind", number)
    said: dict[str, object] = {"feedback_type": "thumbs_up"}
    if kind < 0.2:
        said = {"feedback_type": "correction", "corrected_output": _text("right", number, 40)}
    elif kind < 0.3:
        said = {"feedback_type": "thumbs_down"}
    elif kind < 0.4:
        said = {"feedback_type": "validation", "validation_score": 0.9}
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
        | said
    )


def received(count: int, models: Sequence[str]) -> Iterator[EncodedRecord]:
    """Records of `feedback.received`, spread over models and keys."""
    for number in range(count):
        event = feedback(number, models[number % len(models)])
        yield _record(f"key-{number % 64}", event)


def scored(count: int, models: Models, first: int = 0) -> Iterator[EncodedRecord]:
    """Records of `feedback.scored`: the same feedback as the feedback service would put it there."""
    names, policies = sorted(models.files), Policies(models)
    for number in range(first, first + count):
        event = feedback(number, names[number % len(names)])
        found = score(Record(FEEDBACK_RECEIVED, 0, number, None, *_as_received(event)), policies)
        yield _record(found.key, found.event)


async def fill(bootstrap_servers: str, topic: str, records: Iterator[EncodedRecord]) -> int:
    """Put records on a topic; how many there were."""
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
    """Model files that differ in their names; nothing of a base is read by the streams."""
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


def _text(what: str, number: int, words: int) -> str:
    return " ".join(identity(what, number, at)[:6] for at in range(words))
