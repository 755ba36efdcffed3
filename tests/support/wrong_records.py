"""Records that are no valid event of a type: one for each kind of fault, from a valid event."""

import copy
import json
from collections.abc import Iterator
from typing import Any

from shared.events import Event
from shared.messaging.codec import Header

Fields = dict[str, Any]
Wire = tuple[bytes | None, list[Header]]
Place = tuple[str | int, ...]

OUTSIDE_THE_STORE = {
    "uri leads up": "../../etc/passwd",
    "uri leads up inside": "adapters/../../x",
    "uri is absolute": "/etc/passwd",
    "uri has a scheme": "s3://bucket/manifest.json",
    "uri is a file": "file:///etc/passwd",
    "uri has a zero byte": "adapters/a\0b",
    "uri is empty": "",
    "uri is endless": "n/" * 2000 + "n",
}

ODD_VALUES: tuple[Any, ...] = (
    float("nan"),
    float("inf"),
    float("-inf"),
    -1,
    10**12,
    2**63,
    10**30,
    10**400,
    1e308,
    "",
    "\0",
    "x" * 100_000,
    "../../x",
    None,
    True,
    [],
    {},
    [[[[]]]],
)


def headers_of(event: type[Event], **changed: str | None) -> list[Header]:
    attributes = {
        "specversion": "1.0",
        "type": event.type_name(),
        "source": "/wrong",
        "id": "1",
        **changed,
    }
    return [
        ("content-type", b"application/json"),
        *(
            (f"ce_{name}", value.encode())
            for name, value in attributes.items()
            if value is not None
        ),
    ]


def artefacts_of(fields: Fields) -> list[str]:
    """Return the fields of an event that are artefacts."""
    return [name for name, value in fields.items() if isinstance(value, dict) and "uri" in value]


def wrong_records(event: type[Event], fields: Fields, other: type[Event]) -> dict[str, Wire]:
    """Return records that are never an event of type `event`, by the kind of their fault. `other`
    is a type that does not belong to the topic.
    """
    ours = headers_of(event)

    def of(**changed: Any) -> Wire:
        return json.dumps(fields | changed).encode(), ours

    records: dict[str, Wire] = {
        "no value": (None, ours),
        "empty value": (b"", ours),
        "not JSON": (b"{not json", ours),
        "not UTF-8": (b'{"event_id": "\xff\xfe"}', ours),
        "random bytes": (bytes(range(256)), ours),
        "cut off": (json.dumps(fields).encode()[:-1], ours),
        "an array": (json.dumps([fields]).encode(), ours),
        "a number": (b"7", ours),
        "nested too deep": (b'{"event_id":' + b"[" * 100_000 + b"]" * 100_000 + b"}", ours),
        "nested too deep in a field": of(model=json.loads("[" * 400 + "]" * 400)),
        "too many digits": (b'{"event_id": ' + b"9" * 5000 + b"}", ours),
        "unknown type": (json.dumps(fields).encode(), headers_of(event, type="ratchet.NoSuch.v1")),
        "another version": (
            json.dumps(fields).encode(),
            headers_of(event, type=f"ratchet.{event.__name__}.v99"),
        ),
        "an event of another topic": (json.dumps(fields).encode(), headers_of(other)),
        "another schema": (b'{"colour": "blue"}', ours),
        "a batch of events": (
            json.dumps([fields]).encode(),
            [("content-type", b"application/cloudevents-batch+json")],
        ),
        "undeclared model": of(model="undeclared"),
        "model leads up": of(model="../support"),
        "model is a number": of(model=5),
        "id is a number": of(event_id=7),
        "id is too long": of(event_id="e" * 257),
        "time is not one": of(occurred_at="yesterday"),
        "time is out of range": of(occurred_at="10000-01-01T00:00:00Z"),
        "time is not a number": of(occurred_at=float("nan")),
    }
    for name in artefacts_of(fields):
        for kind, uri in OUTSIDE_THE_STORE.items():
            records[f"{name}: {kind}"] = of(**{name: fields[name] | {"uri": uri}})
    return records


def odd_records(event: type[Event], fields: Fields) -> dict[str, Wire]:
    """Return records with an odd value in one place each; some of them are valid events."""
    return {
        f"{'.'.join(map(str, place))}: {str(value)[:12]!r}": (
            json.dumps(_replaced(fields, place, value)).encode(),
            headers_of(event),
        )
        for place in _places(fields)
        for value in ODD_VALUES
    }


def _places(value: Any, place: Place = ()) -> Iterator[Place]:
    """Yield the places of all values inside an event; of an array, those of its first item."""
    if place:
        yield place
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _places(inner, (*place, name))
    elif isinstance(value, list) and value:
        yield from _places(value[0], (*place, 0))


def _replaced(fields: Fields, place: Place, value: Any) -> Fields:
    changed = copy.deepcopy(fields)
    inner: Any = changed
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    return changed
