"""Events as Kafka records: CloudEvents 1.0 in the Kafka binding.

Written in binary mode (`ce_*` headers, the value is the event as plain JSON). Read in binary mode, structured mode and,
where strangers write, as bare JSON. CloudEvents: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from cloudevents.core.bindings.kafka import CE_PREFIX, KafkaMessage, from_kafka
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from pydantic import ValidationError
from pydantic_core import from_json

from shared.errors import ContractViolation, Undecodable
from shared.events import Event

Headers = Sequence[tuple[str, bytes]]

E = TypeVar("E", bound=Event)

JSON_TYPE = "application/json"
STRUCTURED_TYPE = b"application/cloudevents+json"


@dataclass(frozen=True, slots=True)
class Decoded(Generic[E]):
    """An event and the CloudEvents `source` that it came with, empty for bare JSON."""

    event: E
    source: str


def encode(event: Event, source: str, **extensions: str) -> tuple[bytes, list[tuple[str, bytes]]]:
    """The value and the headers of the record that says `event`, in binary mode. `extensions` are further CloudEvents attributes."""
    attributes = {
        "specversion": "1.0",
        "type": event.type_name(),
        "source": source,
        "id": event.event_id,
        "time": event.occurred_at.isoformat(),
        **extensions,
    }
    headers = [("content-type", JSON_TYPE.encode())]
    headers += [(CE_PREFIX + name, value.encode()) for name, value in attributes.items()]
    return event.model_dump_json(exclude_none=True).encode(), headers


def decode(value: bytes | None, headers: Headers, *accepted: type[E], otherwise: type[E] | None = None) -> Decoded[E]:
    """The event that a record says; `accepted` are the types that may stand on its topic. A record that names none of Ratchet's types
    is taken for `otherwise`, or for the only accepted one.

    An event without `event_id` or `occurred_at` in its data takes them from the envelope's `id` and `time`.
    Raises Undecodable when the bytes are no event, ContractViolation when a field is wrong.
    """
    if not value:
        raise Undecodable("the record has no value; send the event as JSON")
    envelope, data = _unwrap(value, headers)
    if not isinstance(data, dict):
        raise Undecodable(f"expected a JSON object, found {_kind(data)}")
    event_type = _choose(envelope.get("type"), accepted, otherwise)
    data.setdefault("event_id", envelope.get("id"))
    data.setdefault("occurred_at", envelope.get("time"))
    absent = {name: value for name, value in data.items() if value is not None}
    try:
        return Decoded(event_type.model_validate(absent), str(envelope.get("source", "")))
    except ValidationError as error:
        raise _violation(error) from error


def _unwrap(value: bytes, headers: Headers) -> tuple[dict[str, Any], Any]:
    """The CloudEvents attributes of a record, none for bare JSON, and its data."""
    names = {name.lower(): content for name, content in headers}
    binary = any(name.startswith(CE_PREFIX) for name in names)
    structured = names.get("content-type", b"").startswith(STRUCTURED_TYPE)
    try:
        if binary or structured:
            event = from_kafka(KafkaMessage(headers=names, key=None, value=value), _Json(), CloudEvent)
            return event.get_attributes(), event.get_data()
        data = from_json(value)
    except Exception as error:  # the library and the parser raise many kinds for bytes that are no event; all mean the same here
        raise Undecodable(f"not an event: {error}") from error
    if isinstance(data, dict) and "specversion" in data and "data" in data:
        return {name: content for name, content in data.items() if name != "data"}, data["data"]
    return {}, data


def _choose(type_name: str | None, accepted: Sequence[type[E]], otherwise: type[E] | None) -> type[E]:
    for event_type in accepted:
        if event_type.type_name() == type_name:
            return event_type
    foreign = type_name is None or not type_name.startswith("ratchet.")
    default = accepted[0] if len(accepted) == 1 else otherwise
    if foreign and default is not None:
        return default
    expected = " or ".join(event_type.type_name() for event_type in accepted)
    raise Undecodable(f"expected an event of type {expected}, found {type_name or 'none'}", "type")


def _violation(error: ValidationError) -> ContractViolation:
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    others = error.error_count() - 1
    return ContractViolation(first["msg"] + (f" (and {others} more)" if others else ""), field)


def _kind(data: object) -> str:
    return {list: "an array", str: "a string", type(None): "null", bool: "a boolean"}.get(type(data), "a number")


class _Json(JSONFormat):
    """JSON data whatever the content type says, parsed as everywhere else."""

    def read_data(self, body: bytes, datacontenttype: str | None) -> Any:
        return from_json(body)
