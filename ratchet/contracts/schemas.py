"""JSON Schemas of the events, draft 2020-12. Pure."""

from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from shared.events import EVENTS, Event

Schema = dict[str, Any]

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def event_schema(event: type[Event]) -> Schema:
    """Return the schema of an event's data.

    Data that fits the schema is accepted, except for conditions that JSON Schema cannot express.
    """
    schema = event.model_json_schema(schema_generator=_Plain)
    return {
        "$schema": DRAFT,
        "$id": f"urn:ratchet:event:{event.__name__}:v{event.schema_version}",
        **_ordered(schema),
    }


def event_schemas() -> dict[str, Schema]:
    """Return the schema of every event by its CloudEvents `type`, in the order of the flow."""
    return {event.type_name(): event_schema(event) for event in EVENTS}


class _Plain(GenerateJsonSchema):
    """Schema generator without a title per field, which would repeat the field's name."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _ordered(schema: Schema) -> Schema:
    """Order a schema: title and type first, definitions last."""
    first = {name: schema[name] for name in ("title", "description", "type") if name in schema}
    last = {"$defs": schema["$defs"]} if "$defs" in schema else {}
    return (
        first
        | {name: part for name, part in schema.items() if name not in first and name not in last}
        | last
    )
