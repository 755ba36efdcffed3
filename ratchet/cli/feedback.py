"""`ratchet feedback`: send feedback from options or from a file of JSON Lines."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import typer
from pydantic_core import from_json, to_json

from ratchet import console
from ratchet.local_stack.token_store import token_for
from ratchet.options import (
    DEFAULT_BOOTSTRAP_SERVERS,
    DEFAULT_REGISTRY,
    DEFAULT_STATE,
    Bootstrap,
    Json,
    Registry,
    State,
    Token,
    security_from_environment,
)
from ratchet.registry_client import RegistryClient, RegistryRequestRefused
from shared.clock import SystemClock
from shared.config.models import declared_names
from shared.errors import CommandRefused, Misconfigured, Unavailable, Unprocessable
from shared.events import FeedbackReceived, FeedbackType
from shared.kafka.client import KafkaProducer
from shared.kafka.security import PLAINTEXT, Security
from shared.messaging.bus import publish
from shared.messaging.codec import decode
from shared.messaging.topics import FEEDBACK_RECEIVED

SOURCE = "/ratchet/command-line"

feedback = typer.Typer(no_args_is_help=True, help="Send feedback.")


@feedback.command("send")
def feedback_send(
    model: Annotated[str, typer.Option(help="The model that answered.")],
    input: Annotated[str, typer.Option(help="The prompt, or a JSON list of {role, content}.")],
    output: Annotated[str, typer.Option(help="The model's answer.")],
    type: Annotated[str, typer.Option(help=" | ".join(FeedbackType.__args__))] = "thumbs_up",
    corrected: Annotated[str | None, typer.Option(help="The correct answer.")] = None,
    comment: Annotated[str | None, typer.Option(help="The user's words about the answer.")] = None,
    score: Annotated[
        float | None, typer.Option(help="The score of an automatic check, 0 to 1.")
    ] = None,
    user: Annotated[str | None, typer.Option(help="The id of the user.")] = None,
    model_version: Annotated[str | None, typer.Option(help="The version that answered.")] = None,
    event_id: Annotated[
        str | None, typer.Option(help="Feedback sent again under the same id counts once.")
    ] = None,
    bootstrap_servers: Bootstrap = DEFAULT_BOOTSTRAP_SERVERS,
    registry: Registry = DEFAULT_REGISTRY,
    token: Token = None,
    state: State = DEFAULT_STATE,
    json: Json = False,
) -> None:
    """Send feedback on one answer."""
    fields: dict[str, Any] = {
        "event_id": event_id or str(uuid4()),
        "occurred_at": SystemClock().now(),
        "model": model,
        "model_version": model_version,
        "input": input,
        "output": output,
        "feedback_type": type,
        "validation_score": score,
        "corrected_output": corrected,
        "comment": comment,
        "user_id": user,
    }
    event = build_event(fields)
    note = check_declared([event], registry, token_for(registry, state, token))
    asyncio.run(send_events(bootstrap_servers, [event], security_from_environment()))
    if note:
        console.print_status(note)
    if json:
        console.print_json({"sent": 1, "event_id": event.event_id})
    else:
        console.out.print(f"sent {event.event_id}", highlight=False)


@feedback.command("import")
def feedback_import(
    file: Path,
    bootstrap_servers: Bootstrap = DEFAULT_BOOTSTRAP_SERVERS,
    registry: Registry = DEFAULT_REGISTRY,
    token: Token = None,
    state: State = DEFAULT_STATE,
    json: Json = False,
) -> None:
    """Send the feedback in a file of JSON Lines; if a line is invalid, or for an unknown model,
    nothing is sent.
    """
    events = list(read_events(file))
    note = check_declared(events, registry, token_for(registry, state, token))
    asyncio.run(send_events(bootstrap_servers, events, security_from_environment()))
    if note:
        console.print_status(note)
    if json:
        console.print_json({"sent": len(events)})
    else:
        console.out.print(f"sent {len(events)} events")


def check_declared(
    events: Sequence[FeedbackReceived], registry: str, token: str | None
) -> str | None:
    """Check that the registry knows the model of each event. Return a note if it does not answer.

    Raises CommandRefused for an unknown model: its feedback would be a dead letter.
    """
    try:
        with RegistryClient(registry, token, timeout=5.0) as client:
            declared = {model["model"] for model in client.get_all("/api/models")}
    except (Unavailable, RegistryRequestRefused, KeyError, TypeError, ValueError) as error:
        # The last three: another program than a registry has answered.
        return f"sent without a check of the model's name: {error}"
    for event in events:
        if event.model not in declared:
            raise CommandRefused(
                f"event {event.event_id!r}: the registry at {registry} knows no model "
                f"{event.model!r}; {declared_names(event.model, declared)}; nothing was sent"
            )
    return None


def read_events(path: Path) -> Iterator[FeedbackReceived]:
    """Read the events of a file, one JSON object per line. Raises Unprocessable naming the line."""
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if line.strip():
            try:
                yield decode(line, (), FeedbackReceived).event
            except Unprocessable as error:
                raise Unprocessable(f"{path}:{number}: {error}") from error


def build_event(fields: dict[str, Any]) -> FeedbackReceived:
    """Build an event from named fields; `input` may be a conversation in JSON. Raises Unprocessable
    naming the field.
    """
    text = fields.get("input")
    if isinstance(text, str) and text.lstrip().startswith("["):
        try:
            fields = fields | {"input": from_json(text)}
        except ValueError as error:
            raise Unprocessable(
                f"looks like a list of turns but is not valid JSON: {error}", "input"
            ) from error
    present = {name: value for name, value in fields.items() if value is not None}
    return decode(to_json(present), (), FeedbackReceived).event


async def send_events(
    bootstrap_servers: str, events: list[FeedbackReceived], security: Security = PLAINTEXT
) -> None:
    """Publish events to `feedback.received`, in order, and wait until all are durable.

    Raises BusUnavailable, and Misconfigured with the id of an event that is too large for the
    topic.
    """
    producer = KafkaProducer(bootstrap_servers, security)
    await producer.start()
    try:
        for sent, event in enumerate(events):
            try:
                await publish(producer, FEEDBACK_RECEIVED, event.key, event, SOURCE)
            except Misconfigured as error:
                raise Misconfigured(
                    f"event {event.event_id!r}: {error}; events sent before it: {sent}"
                ) from error
    finally:
        await producer.stop()
