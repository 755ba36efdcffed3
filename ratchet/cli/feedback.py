"""Sending feedback from the command line: from arguments or from a file of JSON Lines."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic_core import from_json, to_json

from shared.errors import Unprocessable
from shared.events import FeedbackReceived
from shared.kafka.client import KafkaProducer
from shared.kafka.security import PLAINTEXT, Security
from shared.messaging.bus import publish
from shared.messaging.codec import decode
from shared.messaging.topics import FEEDBACK_RECEIVED

SOURCE = "/ratchet/command-line"


def read_events(path: Path) -> Iterator[FeedbackReceived]:
    """The events of a file, one JSON object a line. Raises Unprocessable naming the line."""
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if line.strip():
            try:
                yield decode(line, (), FeedbackReceived).event
            except Unprocessable as error:
                raise Unprocessable(f"{path}:{number}: {error}") from error


def build_event(fields: dict[str, Any]) -> FeedbackReceived:
    """An event from named fields; `input` may be a conversation in JSON. Raises Unprocessable
    naming the field.
    """
    text = fields.get("input")
    if isinstance(text, str) and text.lstrip().startswith("["):
        try:
            fields = fields | {"input": from_json(text)}
        except ValueError as error:
            raise Unprocessable(
                f"looks like a list of turns but is not JSON: {error}", "input"
            ) from error
    present = {name: value for name, value in fields.items() if value is not None}
    return decode(to_json(present), (), FeedbackReceived).event


async def send_events(
    bootstrap_servers: str, events: list[FeedbackReceived], security: Security = PLAINTEXT
) -> None:
    """Put events on `feedback.received` and wait until all are durable. Raises BusUnavailable."""
    producer = KafkaProducer(bootstrap_servers, security)
    await producer.start()
    try:
        for event in events:
            await publish(producer, FEEDBACK_RECEIVED, event.key, event, SOURCE)
    finally:
        await producer.stop()
