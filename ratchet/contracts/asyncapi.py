"""The topics and their events as an AsyncAPI 3.0.0 document. Pure.

Payloads are references to the JSON Schemas beside the document.
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
    "ce_specversion": "the version of CloudEvents",
    "ce_type": "which event it is",
    "ce_source": "who says so",
    "ce_id": "the event's id, unique for its source",
    "ce_time": "when it happened",
}
_SOURCES = {
    "applications": "/shop/assistant",
    "feedback": "/ratchet/feedback",
    "dataset": "/ratchet/dataset",
    "trainer": "ratchet/trainer",
    "registry": "ratchet/registry",
}
_LETTER_HEADERS = {
    "topic": "where the record stood",
    "partition": "where the record stood",
    "offset": "where the record stood",
    "reason": "why it cannot be processed",
    "field": "which field is at fault; empty when it is the whole",
    "error": "the kind of error",
    "service": "who says so",
    "service_version": "its version",
    "at": "when",
    "attempt": "1, and one more for each time that it was replayed before",
}


def asyncapi_document(version: str, examples: Mapping[str, Mapping[str, Any]]) -> Part:
    """The document. `examples` are events by their CloudEvents `type`."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Ratchet",
            "version": version,
            "description": "What Ratchet says and reads on the bus: CloudEvents 1.0 in the Kafka binding, "
            "written in binary mode.",
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
                    name: [value] if name == "cleanup.policy" else int(value)
                    for name, value in sorted(topic.settings.items())
                },
                "bindingVersion": _BINDING,
            }
        },
    }


def _described(topic: Topic) -> str:
    if _is_dead_letters(topic):
        return (
            "Records that can never be processed, unchanged, with where they stood and why they "
            "are here."
        )
    if not topic.events:
        return f"State of the {topic.producer} service, by `{topic.key}`; no contract."
    return f"Keyed by {topic.key}."


def _operations() -> Iterator[tuple[str, Part]]:
    """Who sends and who receives what, topic by topic."""
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
    said = examples[type_name]
    producers = [service for service in topic.producers if event in topic.written_by(service)]
    _, headers = encode(event.model_validate(said), _SOURCES[producers[0]])
    attributes = {"properties": {"ce_type": {"const": type_name}}}
    return {
        "name": type_name,
        "title": event.__name__,
        "description": inspect.cleandoc(event.__doc__ or ""),
        "contentType": "application/json",
        # Bare JSON will do for what applications write.
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
            {"headers": {name: value.decode() for name, value in headers}, "payload": dict(said)}
        ],
    }


def _cloud_event() -> Part:
    headers = _ATTRIBUTES | {"traceparent": "the step that led to it, where traces are on"}
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
        "summary": "A record as it was sent, its own headers included.",
        "contentType": "application/octet-stream",
        "headers": {"type": "object", "properties": names, "required": sorted(names)},
        "payload": {"description": "whatever was sent"},
        "bindings": {
            "kafka": {"key": {"description": "as the source"}, "bindingVersion": _BINDING}
        },
    }


def _is_dead_letters(topic: Topic) -> bool:
    return any(topic.name == dead_letter_topic(other.name) for other in TOPICS)
