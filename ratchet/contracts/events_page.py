"""Markdown page of the contracts: topics, records, and every event field by field. Pure."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from shared.events import EVENTS, Event
from shared.messaging.topics import TOPICS, Topic

Schema = Mapping[str, Any]

_HEAD = """\
# Events

The contract of every topic and event that Ratchet produces or consumes. `make contracts` writes
this page, the [JSON Schemas](schemas) and the [AsyncAPI document](asyncapi.yaml) from
[`shared/events`](../shared/events) and
[`shared/messaging/topics.py`](../shared/messaging/topics.py).

## Topics

Each event topic has a dead-letter topic, `<topic>.dlq` ([dead letters](dead-letters.md)).

"""

_RECORDS = """\
## Records

Events are
[CloudEvents 1.0](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md).
Ratchet writes binary mode: the value is the event as JSON, without null fields, and the headers are

| header | |
|---|---|
| `content-type` | `application/json` |
| `ce_specversion` | `1.0` |
| `ce_type` | the event's type, as in `ratchet.BatchReady.v1` |
| `ce_source` | the producer, as in `/ratchet/feedback` |
| `ce_id` | the event's `event_id` |
| `ce_time` | the event's `occurred_at` |
| `traceparent` | the span that led to the event, with [tracing](tracing.md) on |

It also reads structured mode (`content-type: application/cloudevents+json`) and bare JSON.
Applications need no headers: on `feedback.received`, a record without one of Ratchet's types is
decoded as feedback. Its `event_id` and `occurred_at` may be in the envelope alone, as `ce_id` and
`ce_time`.

## Compatibility

Within a version (the `v1` in a type's name), events change only in ways that keep two promises:

- **old events stay readable**: no field is removed or changes its type, no new field is required,
  no bound becomes tighter, no default changes, and an enumeration only grows;
- **readers keep working**, for events that Ratchet writes: a field that was always present stays
  so, and has no new type.

New fields and new values are allowed. A reader of `models.versions` should ignore what it does not
know. Ratchet's own services refuse unknown fields, because for them these are a mistake: **upgrade
consumers before producers**, in the order registry, trainer, dataset, feedback; the trainer first
if `models.versions` has changed. Any other change needs a new version, under another type.

[`schemas/earlier`](schemas/earlier) contains the earlier schemas, and a test checks the present
ones against all of them. `make contracts` archives a schema there when it changes, and refuses to
write one that breaks a promise.

"""


def events_page(schemas: Mapping[str, Schema]) -> str:
    """Build the page. `schemas` are those of the events by their type."""
    values: dict[str, Schema] = {}
    parts = [_HEAD, *_topics(), "\n", _RECORDS, "## Events in the order of the flow\n"]
    for event in EVENTS:
        schema = schemas[event.type_name()]
        values |= {
            name: part for name, part in schema.get("$defs", {}).items() if name not in values
        }
        parts += ["\n", *_event(event, schema)]
    parts.append("\n## Values\n\nTypes that events are composed of.\n")
    for name, schema in values.items():
        parts += ["\n", f"### {name}\n\n", _text(schema), "\n\n", *_fields(schema)]
    return "".join(parts)


def _topics() -> Iterator[str]:
    yield (
        "| topic | key | events | producers | consumers | partitions | retention "
        "|\n|---|---|---|---|---|---|---|\n"
    )
    for topic in TOPICS:
        if topic.name.endswith(".dlq"):
            continue
        events = (
            ", ".join(_link(event.__name__) for event in topic.events)
            or "internal state, no contract"
        )
        readers = ", ".join(topic.consumers) or topic.producer
        key = topic.key.replace("|", "\\|")
        yield (
            f"| `{topic.name}` | {key} | {events} | {topic.producer} | {readers} | "
            f"{topic.partitions} | {_kept(topic)} |\n"
        )


def _kept(topic: Topic) -> str:
    if topic.compacted:
        return "compacted: the last of each key"
    return (
        "unlimited" if topic.retention is None else f"{topic.retention // timedelta(days=1)} days"
    )


def _event(event: type[Event], schema: Schema) -> Iterator[str]:
    topic = next(topic for topic in TOPICS if event in topic.events)
    name = event.type_name()
    strict = "an error" if schema.get("additionalProperties") is False else "ignored"
    yield f"### {event.__name__}\n\n{_text(schema)}\n\n"
    yield (
        f"`{name}` on `{topic.name}` · [schema](schemas/{name}.json) · unknown fields are "
        f"{strict}\n\n"
    )
    yield from _fields(schema)


def _fields(schema: Schema) -> Iterator[str]:
    yield "| field | type | | |\n|---|---|---|---|\n"
    for name, field in schema["properties"].items():
        description = field.get("description", "").replace("|", "\\|")
        yield f"| `{name}` | {_kind(field)} | {_need(name, field, schema)} | {description} |\n"


def _need(name: str, field: Schema, schema: Schema) -> str:
    if name in schema.get("required", ()):
        return "required"
    default = field.get("default")
    if default in (None, "", []):
        return "optional"
    return (
        "default "
        f"`{', '.join(map(str, default)) if isinstance(default, list) else str(default).lower()}`"
    )


def _kind(part: Schema) -> str:
    if "$ref" in part:
        return _link(part["$ref"].rpartition("/")[2])
    if "anyOf" in part:
        return ", or ".join(_kind(option) for option in part["anyOf"] if option != {"type": "null"})
    if "enum" in part:
        return ", ".join(f"`{value}`" for value in part["enum"])
    if "const" in part:
        return f"`{part['const']}`"
    if part["type"] == "array":
        return f"list of {_kind(part['items'])}" + (", not empty" if part.get("minItems") else "")
    if part["type"] == "object":
        return f"map of {_kind(part['additionalProperties'])}"
    return _scalar(part)


def _scalar(part: Schema) -> str:
    text: str = {"date-time": "RFC 3339 time"}.get(part.get("format", "")) or part["type"]
    least, most = part.get("minimum"), part.get("maximum")
    if least is not None and most is not None:
        text += f" from {least} to {most}"
    elif least is not None:
        text += f" from {least}"
    shortest, longest = part.get("minLength"), part.get("maxLength")
    if longest is not None:
        text += f", {shortest or 0} to {longest} characters"
    elif shortest:
        text += ", not empty"
    return text + (f", `{part['pattern']}`" if "pattern" in part else "")


def _link(name: str) -> str:
    return f"[{name}](#{name.lower()})"


def _text(schema: Schema) -> str:
    text: str = schema.get("description", "")
    return text
