"""Malformed and unusual records, deterministic by seed: input from faulty applications and other
Kafka clients.

Each maker varies a valid event in one way. `outcome` is the expected result: `event`, `letter` (a
dead letter), or `either` where it depends on the event type or on chance.
"""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

from shared.messaging.codec import Header

Outcome = Literal["event", "letter", "either"]
Fields = dict[str, Any]
Wire = tuple[bytes | None, list[Header]]
Make = Callable[[Random, Fields], Wire]

DEEP = 100_000
HUGE = 1_000_000


@dataclass(frozen=True, slots=True)
class OddInput:
    """One record and the name of its maker."""

    maker: str
    outcome: Outcome
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]


@dataclass(frozen=True, slots=True)
class OddInputMaker:
    """A function that makes records, and its weight in the selection."""

    make: Make
    outcome: Outcome
    weight: float


MAKERS: dict[str, OddInputMaker] = {}


def generate_odd_inputs(seed: int, count: int, fields: Fields) -> list[OddInput]:
    """Generate `count` records from the valid event `fields`, each with its own event id."""
    rng = Random(seed)
    names = list(MAKERS)
    weights = [MAKERS[name].weight for name in names]
    chosen = names + rng.choices(names, weights, k=count - len(names))
    rng.shuffle(chosen)
    cases = []
    for number, name in enumerate(chosen):
        value, headers = MAKERS[name].make(rng, fields | {"event_id": f"odd-{seed}-{number}"})
        key = rng.choice([None, b"", str(fields.get("model")).encode(), rng.randbytes(8)])
        cases.append(OddInput(name, MAKERS[name].outcome, key, value, tuple(headers)))
    return cases


def maker(outcome: Outcome = "letter", weight: float = 1.0) -> Callable[[Make], Make]:
    def register(make: Make) -> Make:
        MAKERS[make.__name__] = OddInputMaker(make, outcome, weight)
        return make

    return register


def encoded(fields: Any) -> bytes:
    return json.dumps(fields).encode()


def attributes(fields: Fields, **changed: Any) -> Fields:
    envelope = {
        "specversion": "1.0",
        "type": "com.example.feedback",
        "source": "/odd",
        "id": fields["event_id"],
        "time": "2026-05-04T03:02:01Z",
    }
    return {name: value for name, value in (envelope | changed).items() if value is not None}


def binary(fields: Fields, **changed: Any) -> Wire:
    headers: list[Header] = [("content-type", b"application/json")]
    return encoded(fields), headers + [
        (f"ce_{name}", str(value).encode()) for name, value in attributes(fields, **changed).items()
    ]


def structured(fields: Fields, **changed: Any) -> Wire:
    return encoded(attributes(fields, **changed) | {"data": fields}), [
        ("content-type", b"application/cloudevents+json")
    ]


def plain(fields: Fields) -> Wire:
    return encoded(fields), []


MODES: tuple[Callable[[Fields], Wire], ...] = (plain, binary, structured)


def a_field(rng: Random, fields: Fields) -> str:
    return rng.choice([name for name in fields if name != "event_id"])


# Events, in unusual forms.


@maker("event")
def bare(rng: Random, fields: Fields) -> Wire:
    return encoded(fields), []


@maker("event")
def in_binary_mode(rng: Random, fields: Fields) -> Wire:
    return binary(fields)


@maker("event")
def in_structured_mode(rng: Random, fields: Fields) -> Wire:
    return structured(fields)


@maker("event")
def attributes_in_capitals(rng: Random, fields: Fields) -> Wire:
    value, headers = binary(fields)
    return value, [(name.upper(), content) for name, content in headers]


@maker("event")
def content_type_in_capitals(rng: Random, fields: Fields) -> Wire:
    value, _ = structured(fields)
    return value, [("Content-Type", b"Application/CloudEvents+JSON; charset=UTF-8")]


@maker("event")
def data_in_base64(rng: Random, fields: Fields) -> Wire:
    envelope = attributes(fields) | {"data_base64": base64.b64encode(encoded(fields)).decode()}
    return encoded(envelope), [("content-type", b"application/cloudevents+json")]


@maker("event")
def structured_mode_with_attributes_beside_it(rng: Random, fields: Fields) -> Wire:
    value, headers = structured(fields)
    return value, headers + binary(fields, id="another")[1][1:]


@maker("event")
def no_id_outside_the_data(rng: Random, fields: Fields) -> Wire:
    return rng.choice([binary, structured])(fields, id=None, time=None)


@maker("event")
def headers_twice(rng: Random, fields: Fields) -> Wire:
    value, headers = binary(fields)
    return value, headers + headers


@maker("event")
def headers_of_others(rng: Random, fields: Fields) -> Wire:
    return encoded(fields), [
        ("trace", rng.randbytes(16)),
        ("trace", None),
        ("", b""),
        ("ünï", b"\xff\xfe"),
        ("retries", b"1" * 2000),
    ]


@maker("event")
def headers_that_are_ours(rng: Random, fields: Fields) -> Wire:
    ours = rng.choice(
        [
            "ratchet_dlq_reason",
            "ratchet_dlq_attempt",
            "ratchet_replay_attempt",
            "ratchet_replay_of",
            "ratchet_replay_at",
        ]
    )
    return encoded(fields), [
        ("kept", b"1"),
        (ours, rng.choice([b"9", b"-1", b"\xff", b"", None, b"9" * 400])),
    ]


@maker()
def letters_with_headers_that_are_ours(rng: Random, fields: Fields) -> Wire:
    return b"{", headers_that_are_ours(rng, fields)[1]


@maker("event")
def escapes(rng: Random, fields: Fields) -> Wire:
    return encoded(fields | {"event_id": fields["event_id"] + "\u0000\ud83d\ude00"}), []


@maker("event", weight=0.005)
def huge(rng: Random, fields: Fields) -> Wire:
    text = " ".join(rng.randbytes(3).hex() for _ in range(HUGE // 7))
    return encoded(fields | {"output": text} if "output" in fields else fields) + b" " * 10_000, []


@maker("event")
def keys_twice(rng: Random, fields: Fields) -> Wire:
    return b'{"event_id": 5, ' + encoded(fields)[1:], []


# Records that are not events.


@maker()
def no_value(rng: Random, fields: Fields) -> Wire:
    return None, rng.choice([[], [("trace", b"1")], binary(fields)[1]])


@maker()
def empty(rng: Random, fields: Fields) -> Wire:
    return rng.choice([b"", b" ", b"\x00"]), []


@maker()
def random_bytes(rng: Random, fields: Fields) -> Wire:
    return rng.randbytes(rng.randrange(1, 300)), []


@maker()
def not_utf8(rng: Random, fields: Fields) -> Wire:
    value = encoded(fields)
    at = rng.randrange(1, len(value) - 1)
    return value[:at] + rng.choice([b"\xff", b"\xc0\x80", b"\xed\xa0\x80"]) + value[
        at:
    ], rng.choice([[], binary(fields)[1]])


@maker()
def utf16(rng: Random, fields: Fields) -> Wire:
    return json.dumps(fields).encode("utf-16"), []


@maker()
def cut_off(rng: Random, fields: Fields) -> Wire:
    value, headers = rng.choice(MODES)(fields)
    assert value is not None
    return value[: rng.randrange(1, len(value) - 1)], headers


@maker()
def byte_order_mark(rng: Random, fields: Fields) -> Wire:
    return b"\xef\xbb\xbf" + encoded(fields), rng.choice([[], structured(fields)[1]])


@maker()
def other_json(rng: Random, fields: Fields) -> Wire:
    return encoded(
        rng.choice(
            [[], [fields], "text", 7, 1e300, True, None, {}, {"data": fields}, json.dumps(fields)]
        )
    ), []


@maker(weight=0.1)
def deep(rng: Random, fields: Fields) -> Wire:
    opened, closed = rng.choice([(b"[", b"]"), (b'{"a":', b"}")])
    nested = opened * DEEP + b"1" + closed * DEEP
    field = a_field(rng, fields)
    inside = encoded(fields | {field: "@"}).replace(b'"@"', nested)
    envelope = encoded(attributes(fields) | {"data": "@"}).replace(b'"@"', nested)
    return rng.choice(
        [(nested, []), (inside, []), (inside, binary(fields)[1]), (envelope, structured(fields)[1])]
    )


@maker(weight=0.005)
def huge_and_wrong(rng: Random, fields: Fields) -> Wire:
    return encoded(fields)[:-1] + b"x" * HUGE, []


@maker()
def batched_mode(rng: Random, fields: Fields) -> Wire:
    return encoded([attributes(fields) | {"data": fields}]), [
        ("content-type", b"application/cloudevents-batch+json")
    ]


@maker()
def broken_base64(rng: Random, fields: Fields) -> Wire:
    data = rng.choice(["!", base64.b64encode(rng.randbytes(9)).decode(), 5, ""])
    return encoded(attributes(fields) | {"data_base64": data}), structured(fields)[1]


@maker()
def half_a_pair(rng: Random, fields: Fields) -> Wire:
    """An escaped half of a surrogate pair, which some parsers accept and no encoder can write."""
    half = rng.choice([b"\\ud800", b"\\udfff", b"\\ude00\\ud83d"])
    value, headers = rng.choice(MODES)(fields | {a_field(rng, fields): "@"})
    assert value is not None
    return value.replace(b'"@"', b'"' + half + b'"'), headers


@maker()
def half_a_pair_in_the_envelope(rng: Random, fields: Fields) -> Wire:
    name = rng.choice(["source", "type", "id", "subject", "extension"])
    value = encoded(attributes(fields, **{name: "@"}) | {"data": fields}).replace(
        b'"@"', b'"\\ud800"'
    )
    return value, rng.choice([[], structured(fields)[1]])


# Invalid envelopes.


@maker()
def wrong_attributes(rng: Random, fields: Fields) -> Wire:
    name, value = rng.choice(
        [
            ("specversion", "0.3"),
            ("specversion", ""),
            ("source", ""),
            ("type", ""),
            ("type", None),
            ("source", None),
        ]
    )
    return rng.choice([binary, structured])(fields, **{name: value})


@maker()
def attributes_of_other_types(rng: Random, fields: Fields) -> Wire:
    """Also without the content type, in which case only Ratchet validates them."""
    wrong = {rng.choice(["type", "source"]): rng.choice([5, 1.5, True, [1], {"a": 1}])}
    value, headers = structured(fields, **wrong)
    return value, rng.choice([headers, []])


@maker()
def attributes_not_utf8(rng: Random, fields: Fields) -> Wire:
    value, headers = binary(fields)
    return value, [
        *headers,
        (rng.choice(["ce_source", "ce_type", "ce_extra", "content-type"]), b"\xff\xfe"),
    ]


@maker()
def attributes_without_a_value(rng: Random, fields: Fields) -> Wire:
    value, headers = binary(fields)
    name = rng.choice(["ce_type", "ce_source"])
    return value, [(header, None if header == name else content) for header, content in headers]


@maker("event")
def content_type_without_a_value(rng: Random, fields: Fields) -> Wire:
    return encoded(fields), [("content-type", None)]


@maker()
def attribute_names(rng: Random, fields: Fields) -> Wire:
    value, headers = binary(fields)
    return value, [*headers, (rng.choice(["ce_", "ce_my-name", "ce_data", "ce_ä", "ce_a b"]), b"1")]


@maker()
def envelope_times(rng: Random, fields: Fields) -> Wire:
    wrong = rng.choice(
        [
            "yesterday",
            "",
            "2026-13-01T00:00:00Z",
            "0000-01-01T00:00:00Z",
            "10000-01-01T00:00:00Z",
            "2026-01-01T00:00:00",
        ]
    )
    return rng.choice([binary, structured])(fields, time=wrong)


@maker()
def another_type_of_ours(rng: Random, fields: Fields) -> Wire:
    return binary(
        fields,
        type=rng.choice(["ratchet.NoSuchEvent.v1", "ratchet.FeedbackReceived.v99", "ratchet."]),
    )


@maker()
def id_nowhere(rng: Random, fields: Fields) -> Wire:
    data = {name: value for name, value in fields.items() if name != "event_id"}
    envelope = attributes(fields, id=None)
    return rng.choice(
        [
            (encoded(data), binary(fields, id=None)[1]),
            (encoded(envelope | {"data": data}), structured(fields)[1]),
            (encoded(data), []),
        ]
    )


# Events with an invalid field.


@maker()
def times(rng: Random, fields: Fields) -> Wire:
    wrong = [
        "yesterday",
        "",
        "0000-01-01T00:00:00Z",
        "10000-01-01T00:00:00Z",
        "2026-02-30T00:00:00Z",
        "2026-01-01T00:00:00",
        "2026-01-01",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        1e300,
        -1e300,
        10**30,
        True,
        [],
        {},
        "9" * 5000,
    ]
    return encoded(fields | {"occurred_at": rng.choice(wrong)}), []


@maker()
def not_a_number(rng: Random, fields: Fields) -> Wire:
    wrong = rng.choice([float("nan"), float("inf"), float("-inf"), 10**400, -(10**18), 1e999])
    return encoded(fields | {rng.choice(["model", "occurred_at", "event_id"]): wrong}), []


@maker("either")
def odd_numbers(rng: Random, fields: Fields) -> Wire:
    odd = rng.choice(
        [
            float("nan"),
            float("inf"),
            float("-inf"),
            10**400,
            2**63,
            2**64,
            -1,
            0,
            -0.0,
            1e-320,
            0.1 + 0.2,
        ]
    )
    return encoded(fields | {a_field(rng, fields): odd}), []


@maker("letter", weight=0.3)
def too_many_digits(rng: Random, fields: Fields) -> Wire:
    return encoded(fields | {"unknown": "@"}).replace(b'"@"', b"9" * 5000), []


@maker("either")
def types(rng: Random, fields: Fields) -> Wire:
    wrong: Any = rng.choice(
        [5, 0.5, "5", "", True, None, [], [5], {}, {"a": {"b": None}}, "x" * 300, [[]], {"": ""}]
    )
    return encoded(fields | {a_field(rng, fields): wrong}), []


@maker("either")
def absent(rng: Random, fields: Fields) -> Wire:
    left_out = a_field(rng, fields)
    return encoded({name: value for name, value in fields.items() if name != left_out}), []


@maker("either")
def unknown(rng: Random, fields: Fields) -> Wire:
    return encoded(
        fields
        | {
            rng.choice(["colour", "", "__proto__", "x" * 1000, "\u0000", "é"]): rng.choice(
                [1, None, {}, "x"]
            )
        }
    ), []


@maker()
def models(rng: Random, fields: Fields) -> Wire:
    wrong = [
        "",
        "nobody",
        "Support",
        "support\n",
        "support\u0000",
        "sup port",
        "../support",
        "süpport",
        "\u001b[31m",
        "m" * 64,
        "\u202esupport",
        ".",
        5,
    ]
    return encoded(fields | {"model": rng.choice(wrong)}), []


@maker()
def ids(rng: Random, fields: Fields) -> Wire:
    return encoded(fields | {"event_id": rng.choice(["", "e" * 257, 5, [], {"a": 1}, True])}), []


@maker()
def long_names_at_fault(rng: Random, fields: Fields) -> Wire:
    """Text quoted in the reason or the field is long, or contains terminal control codes."""
    bad = rng.choice(["\u001b]0;owned\u0007", "t" * 100_000, "[bold]", "\u0000", "[/nothing]"])
    return rng.choice(
        [
            binary(fields, type=f"ratchet.{bad.strip(chr(0))}"),
            (encoded(fields | {"occurred_at": bad}), []),
        ]
    )
