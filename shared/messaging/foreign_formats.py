"""JSON inside the formats of other tools: Confluent's serializers and Kafka Connect's converter.

Wire format: https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/
Envelope: https://kafka.apache.org/documentation/#connect (`value.converter.schemas.enable`)
"""

import base64
import binascii
from contextlib import suppress
from typing import Any

from pydantic_core import from_json

from shared.errors import Undecodable
from shared.messaging.violations import kind_of

_MAGIC_BYTE = b"\x00"
_PREFIX_BYTES = 5
_ENVELOPE = {"schema", "payload"}


def strip_schema_id(value: bytes) -> bytes:
    """Return the JSON after Confluent's magic byte and schema id; other values unchanged.

    Raises Undecodable where something else follows them, such as Avro.
    """
    if not value.startswith(_MAGIC_BYTE) or len(value) < _PREFIX_BYTES:
        return value
    payload = value[_PREFIX_BYTES:]
    if not payload.lstrip().startswith(b"{"):
        raise Undecodable(
            "the value is in Confluent's wire format (schema id "
            f"{int.from_bytes(value[1:_PREFIX_BYTES], 'big')}), but what follows is not a JSON "
            "object, as with Avro and Protobuf; set value.serializer to KafkaJsonSchemaSerializer, "
            "or to another that writes plain JSON"
        )
    return payload


def connect_payload(data: Any) -> Any:
    """Return the payload of Kafka Connect's envelope `{schema, payload}`; other data unchanged.

    A payload that is a string holds the event as JSON. Raises Undecodable for any other payload
    that is not an object.
    """
    if not isinstance(data, dict) or data.keys() != _ENVELOPE:
        return data
    payload = data["payload"]
    if isinstance(payload, str):
        with suppress(ValueError):
            payload = from_json(payload)
    if isinstance(payload, dict):
        return payload
    raise Undecodable(
        f"the value is Kafka Connect's envelope {{schema, payload}} with {kind_of(payload)} as "
        "payload; make the payload a JSON object, or set value.converter to JsonConverter with "
        "value.converter.schemas.enable=false, and send the event as the value",
        "payload",
    )


def base64_json(text: Any) -> Any:
    """Parse the `data_base64` of a CloudEvent. Raises Undecodable."""
    try:
        return from_json(base64.b64decode(text, validate=True))
    except (TypeError, ValueError, binascii.Error) as error:
        raise Undecodable(
            f"not JSON in base64: {error}; send the event as `data`, or encode its JSON",
            "data_base64",
        ) from error
