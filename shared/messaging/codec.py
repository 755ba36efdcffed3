"""Codec of events as Kafka records: CloudEvents 1.0 in the Kafka binding.

Written in binary mode (`ce_*` headers, the value is the event as plain JSON). Read in binary mode,
structured mode and, from applications, as bare JSON, also inside the formats of other tools
(`foreign_formats`). CloudEvents:
https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from cloudevents.core.base import BaseCloudEvent, EventFactory
from cloudevents.core.bindings.kafka import CE_PREFIX, KafkaMessage, from_binary, from_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from pydantic import ValidationError
from pydantic_core import from_json

from shared.errors import ContractViolation, TooLarge, Undecodable
from shared.events import Event, FeedbackReceived
from shared.messaging.chat_formats import plain_feedback
from shared.messaging.foreign_formats import base64_json, connect_payload, strip_schema_id
from shared.messaging.violations import kind_of, violation_of

Header = tuple[str, bytes | None]
Headers = Sequence[Header]

E = TypeVar("E", bound=Event)

JSON_TYPE = "application/json"
STRUCTURED_TYPE = b"application/cloudevents+json"
BATCHED_TYPE = b"application/cloudevents-batch"

MAX_EVENT_BYTES = 2 << 20
"""Bytes of the largest event that Ratchet writes: twice what applications may send, and half of
what the topics take.
"""


@dataclass(frozen=True, slots=True)
class Decoded(Generic[E]):
    """An event and its CloudEvents `source`, empty for bare JSON."""

    event: E
    source: str


def encode(event: Event, source: str, **extensions: str) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Encode an event in binary mode; return the value and the headers of its record.

    `extensions` are additional CloudEvents attributes. Raises TooLarge for an event that exceeds
    the record size limit.
    """
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
    value = event.model_dump_json(exclude_none=True).encode()
    if len(value) > MAX_EVENT_BYTES:
        raise TooLarge(
            f"{event.type_name()} would be {len(value)} bytes long; at most {MAX_EVENT_BYTES} fit "
            "on the bus"
        )
    return value, headers


def decode(
    value: bytes | None, headers: Headers, *accepted: type[E], default: type[E] | None = None
) -> Decoded[E]:
    """Decode the event of a record; `accepted` are the event types of its topic.

    A record without one of Ratchet's types is decoded as `default`, or as the only accepted type.
    Decoding is deterministic.

    An event without `event_id` or `occurred_at` in its data takes them from the envelope's `id` and
    `time`. The last of several headers with the same name counts, as is usual in Kafka; a header
    without a value counts as absent. Raises Undecodable when the bytes are not an event,
    ContractViolation when a field is invalid.
    """
    if not value:
        raise Undecodable("the record has no value; send the event as JSON")
    envelope, data = _unwrap(value, headers)
    if not isinstance(data, dict):
        raise Undecodable(f"expected a JSON object, found {kind_of(data)}")
    source = _text(envelope, "source") or ""
    event_type = _choose(_text(envelope, "type"), accepted, default)
    data.setdefault("event_id", envelope.get("id"))
    data.setdefault("occurred_at", envelope.get("time"))
    present = {name: value for name, value in data.items() if value is not None}
    # Ratchet's own events have plain messages, and what they hold is not read a second time.
    if event_type is FeedbackReceived:
        present = plain_feedback(present)
    try:
        return Decoded(event_type.model_validate(present), source)
    except ValidationError as error:
        raise violation_of(error, present) from error


def try_decode_data(value: bytes | None, headers: Headers) -> dict[str, Any]:
    """Return the data of a record that may be invalid, for display and search; empty when it cannot
    be decoded.
    """
    try:
        _, data = _unwrap(value or b"", headers)
    except Undecodable:
        return {}
    return data if isinstance(data, dict) else {}


def _unwrap(value: bytes, headers: Headers) -> tuple[dict[str, Any], Any]:
    """Return the CloudEvents attributes of a record, empty for bare JSON, and its data.

    The content type decides the mode, then the `ce_*` headers.
    """
    names = {name.lower(): content for name, content in headers if content is not None}
    content_type = names.get("content-type", b"").lower()
    if content_type.startswith(BATCHED_TYPE):
        raise Undecodable(
            "batched mode is not part of the Kafka binding; send one event per record",
            "content-type",
        )
    value = strip_schema_id(value)
    message = KafkaMessage(headers=names, key=None, value=value)
    try:
        if content_type.startswith(STRUCTURED_TYPE):
            return _parts(from_structured(message, _StrictJson(), _UnchangedCloudEvent))
        if any(name.startswith(CE_PREFIX) for name in names):
            envelope, data = _parts(from_binary(message, _StrictJson(), _UnchangedCloudEvent))
            return envelope, connect_payload(data)
        data = connect_payload(from_json(value))
    except Undecodable:
        raise
    # The library and the parser raise many exception types for bytes that are not an event.
    except Exception as error:
        raise Undecodable(f"not an event: {error}") from error
    if isinstance(data, dict) and "specversion" in data:
        envelope = {
            name: content for name, content in data.items() if name not in ("data", "data_base64")
        }
        if data.get("data") is None and "data_base64" in data:
            return envelope, base64_json(data["data_base64"])
        if "data" in data:
            return envelope, data["data"]
    return {}, data


def _parts(event: BaseCloudEvent) -> tuple[dict[str, Any], Any]:
    data: Any = event.get_data()
    return event.get_attributes(), from_json(data) if isinstance(data, bytes) else data


def _text(envelope: dict[str, Any], name: str) -> str | None:
    value = envelope.get(name)
    if value is None or isinstance(value, str):
        return value
    raise ContractViolation(f"expected a string, found {kind_of(value)}", name)


def _choose(
    type_name: str | None, accepted: Sequence[type[E]], otherwise: type[E] | None
) -> type[E]:
    for event_type in accepted:
        if event_type.type_name() == type_name:
            return event_type
    is_foreign = type_name is None or not type_name.startswith("ratchet.")
    default = accepted[0] if len(accepted) == 1 else otherwise
    if is_foreign and default is not None:
        return default
    expected = " or ".join(event_type.type_name() for event_type in accepted)
    raise Undecodable(f"expected an event of type {expected}, found {type_name or 'none'}", "type")


class _UnchangedCloudEvent(CloudEvent):
    """CloudEvent with the attributes of the record only. The library adds a generated `id` and
    `time` where they are missing.
    """

    def __init__(
        self, attributes: dict[str, Any], data: dict[str, Any] | str | bytes | None = None
    ) -> None:
        names = tuple(attributes)
        super().__init__(attributes, data)
        self._attributes = {name: attributes[name] for name in names}


class _StrictJson(JSONFormat):
    """JSON data whatever the content type says, parsed with the same parser as everywhere else."""

    def read(self, event_factory: EventFactory | None, data: str | bytes) -> BaseCloudEvent:
        # Rejects lone surrogates, which Python's parser accepts but which cannot be encoded.
        from_json(data)
        return super().read(event_factory, data)

    def read_data(self, body: bytes, datacontenttype: str | None) -> Any:
        return from_json(body)
