"""AsyncAPI 3.0.0 document of the topics and their events. Pure.

Payloads are references to the JSON Schemas in the same folder.
https://www.asyncapi.com/docs/reference/specification/v3.0.0
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from shared.events import Event
from shared.messaging.codec import encode
from shared.messaging.dead_letters import DLQ_PREFIX
from shared.messaging.topics import TOPICS, Topic, dead_letter_topic

Part = dict[str, Any]

_BINDING = "0.5.0"
_ATTRIBUTES = {
    "ce_specversion": "version of CloudEvents",
    "ce_type": "type of the event",
    "ce_source": "producer of the event",
    "ce_id": "id of the event, unique per source",
    "ce_time": "time of the event",
}
_SOURCES = {
    "applications": "/shop/assistant",
    "feedback": "/ratchet/feedback",
    "dataset": "/ratchet/dataset",
    "trainer": "ratchet/trainer",
    "registry": "ratchet/registry",
}
_LETTER_HEADERS = {
    "topic": "topic of the record",
    "partition": "partition of the record",
    "offset": "offset of the record",
    "reason": "reason why the record cannot be processed",
    "field": "invalid field; empty when the whole record is invalid",
    "error": "error class",
    "service": "service that gave up",
    "service_version": "version of that service",
    "at": "time of the dead letter",
    "attempt": "1, plus one for each earlier replay",
}


def asyncapi_document(version: str, examples: Mapping[str, Mapping[str, Any]]) -> Part:
    """Build the document. `examples` are events by their CloudEvents `type`."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Ratchet",
            "version": version,
            "description": (
                "Events that Ratchet produces and consumes: CloudEvents 1.0 in the Kafka binding, "
                "written in binary mode."
            ),
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "local": {
                "host": "127.0.0.1:9092",
                "protocol": "kafka",
                "description": "The broker of `ratchet up`.",
            },
        },
        "channels": {topic.name: _channel(topic) for topic in TOPICS},
        "operations": dict(_operations()),
        "components": {
            "messages": {
                event.__name__: _message(topic, event, examples)
                for topic in TOPICS
                for event in topic.events
            }
            | {"DeadLetter": _dead_letter()},
            "schemas": {"CloudEvent": _cloud_event()},
        },
    }


def _channel(topic: Topic) -> Part:
    messages = [event.__name__ for event in topic.events] or (
        ["DeadLetter"] if _is_dead_letters(topic) else []
    )
    return {
        "address": topic.name,
        "description": _described(topic),
        **(
            {"messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages}}
            if messages
            else {}
        ),
        "bindings": {
            "kafka": {
                "topic": topic.name,
                "partitions": topic.partitions,
                "topicConfiguration": {
                    name: _configured(name, value) for name, value in sorted(topic.settings.items())
                },
                "bindingVersion": _BINDING,
            }
        },
    }


def _configured(name: str, value: str) -> list[str] | int | str:
    """Return a topic setting in the type that the Kafka binding has for it."""
    if name == "cleanup.policy":
        return [value]
    return int(value) if value.removeprefix("-").isdigit() else value


def _described(topic: Topic) -> str:
    if _is_dead_letters(topic):
        return "Unprocessable records, unchanged, with their position and the reason in headers."
    if not topic.events:
        return f"State of the {topic.producer} service, by `{topic.key}`; no contract."
    return f"Keyed by {topic.key}."


def _operations() -> Iterator[tuple[str, Part]]:
    """Yield the send and receive operations of each topic."""
    for topic in TOPICS:
        if not topic.events:
            continue
        for service in topic.producers:
            yield (
                f"{service}.send.{topic.name}",
                _operation(
                    "send", topic.name, [event.__name__ for event in topic.written_by(service)]
                ),
            )
        for service in topic.consumers:
            yield (
                f"{service}.receive.{topic.name}",
                _operation("receive", topic.name, [event.__name__ for event in topic.events]),
            )
        letters = dead_letter_topic(topic.name)
        yield f"consumer.send.{letters}", _operation("send", letters, ["DeadLetter"])
        yield f"operator.receive.{letters}", _operation("receive", letters, ["DeadLetter"])


def _operation(action: str, channel: str, messages: Sequence[str]) -> Part:
    at = f"#/channels/{channel}"
    return {
        "action": action,
        "channel": {"$ref": at},
        "messages": [{"$ref": f"{at}/messages/{name}"} for name in messages],
    }


def _message(topic: Topic, event: type[Event], examples: Mapping[str, Mapping[str, Any]]) -> Part:
    type_name = event.type_name()
    example = examples[type_name]
    producers = [service for service in topic.producers if event in topic.written_by(service)]
    _, headers = encode(event.model_validate(example), _SOURCES[producers[0]])
    attributes = {"properties": {"ce_type": {"const": type_name}}}
    return {
        "name": type_name,
        "title": event.__name__,
        "description": inspect.cleandoc(event.__doc__ or ""),
        "contentType": "application/json",
        # Applications may write bare JSON.
        "headers": attributes
        if "applications" in producers
        else {
            "allOf": [
                {"$ref": "#/components/schemas/CloudEvent"},
                {"required": sorted(_ATTRIBUTES), **attributes},
            ]
        },
        "payload": {"$ref": f"schemas/{type_name}.json"},
        "bindings": {
            "kafka": {
                "key": {"type": "string", "description": topic.key},
                "bindingVersion": _BINDING,
            }
        },
        "examples": [
            {"headers": {name: value.decode() for name, value in headers}, "payload": dict(example)}
        ],
    }


def _cloud_event() -> Part:
    headers = _ATTRIBUTES | {"traceparent": "span that led to the event, with tracing on"}
    names = {name: {"type": "string", "description": text} for name, text in headers.items()}
    return {
        "type": "object",
        "description": "CloudEvents 1.0 attributes in binary mode.",
        "properties": {"content-type": {"type": "string"}, **names},
    }


def _dead_letter() -> Part:
    names = {
        DLQ_PREFIX + name: {"type": "string", "description": text}
        for name, text in _LETTER_HEADERS.items()
    }
    return {
        "name": "DeadLetter",
        "title": "DeadLetter",
        "summary": "The original record, including its own headers.",
        "contentType": "application/octet-stream",
        "headers": {"type": "object", "properties": names, "required": sorted(names)},
        "payload": {"description": "the original value"},
        "bindings": {
            "kafka": {"key": {"description": "as the source"}, "bindingVersion": _BINDING}
        },
    }


def _is_dead_letters(topic: Topic) -> bool:
    return any(topic.name == dead_letter_topic(source.name) for source in TOPICS)
