"""Events as JSON Schemas, draft 2020-12. Pure."""

from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from shared.events import EVENTS, Event

Schema = dict[str, Any]

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def event_schema(event: type[Event]) -> Schema:
    """What the data of an event may be. Whatever fits it is accepted, but for conditions that JSON
    Schema cannot express.
    """
    schema = event.model_json_schema(schema_generator=_Plain)
    return {
        "$schema": DRAFT,
        "$id": f"urn:ratchet:event:{event.__name__}:v{event.schema_version}",
        **_ordered(schema),
    }


def event_schemas() -> dict[str, Schema]:
    """The schema of every event by its CloudEvents `type`, in the order of the flow."""
    return {event.type_name(): event_schema(event) for event in EVENTS}


class _Plain(GenerateJsonSchema):
    """Without a title for each field: it would say its name once more."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _ordered(schema: Schema) -> Schema:
    """What it is first, the values that it is made of last."""
    first = {name: schema[name] for name in ("title", "description", "type") if name in schema}
    last = {"$defs": schema["$defs"]} if "$defs" in schema else {}
    return (
        first
        | {name: part for name, part in schema.items() if name not in first and name not in last}
        | last
    )
