"""Redacted events: consistent placeholders, intact JSON, idempotence, linear time."""

import json
from collections.abc import Callable
from time import process_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.config.redaction_policy import RedactionPolicy
from shared.redaction.pseudonyms import pseudonym
from shared.redaction.redactor import RedactedFeedback, Redactor
from tests.feedback.feedback_events import make_feedback

REDACTOR = Redactor(RedactionPolicy())


def redacted(**fields: Any) -> RedactedFeedback:
    return REDACTOR.redact(make_feedback(**fields))


def redact(text: str) -> str:
    return redacted(output=text).feedback.output


def test_a_value_has_one_number_in_all_fields_and_spellings() -> None:
    result = redacted(
        feedback_type="correction",
        input=[
            {"role": "system", "content": "be kind"},
            {"role": "user", "content": "I am Ann@Example.com, not bob@example.com"},
        ],
        output="Dear ann@example.com, we call +49 30 1234567",
        corrected_output="Dear bob@example.com, we call 030 / 1234567",
        tags={"reply_to": "bob@example.com", "finish_reason": "stop"},
    )
    event = result.feedback
    assert [message.content for message in event.messages] == [
        "be kind",
        "I am <EMAIL_1>, not <EMAIL_2>",
    ]
    assert event.output == "Dear <EMAIL_1>, we call <PHONE_1>"
    assert event.corrected_output == "Dear <EMAIL_2>, we call <PHONE_1>"
    assert event.tags == {"reply_to": "<EMAIL_2>", "finish_reason": "stop"}
    assert result.counts == {"email": 5, "phone": 2}


def test_an_event_without_matches_is_unchanged() -> None:
    feedback = make_feedback(
        output='{"queue":"harbor","order":"12345"}',
        input="Where is 12345?",
        user_id="ann",
        tags={"a": "b"},
    )
    result = REDACTOR.redact(feedback, "/app")
    assert result.feedback is feedback
    assert (result.source, result.counts) == ("/app", {})


def test_numbers_of_existing_placeholders_are_not_reused() -> None:
    assert redact("<EMAIL_1> wrote to ann@example.com") == "<EMAIL_1> wrote to <EMAIL_2>"


def test_a_placeholder_inside_a_key_hides_nothing_else() -> None:
    text = (
        "-----BEGIN PRIVATE KEY----- <EMAIL_1> AKIA" + "IOSFODNN7EXAMPLE -----END PRIVATE KEY-----"
    )
    assert (
        redact(text) == "-----BEGIN PRIVATE KEY----- <EMAIL_1> <SECRET_1> -----END PRIVATE KEY-----"
    )


def test_identifiers_that_are_personal_data_get_pseudonyms() -> None:
    result = REDACTOR.redact(
        make_feedback(
            user_id="Ann@Example.com",
            conversation_id="whatsapp:+4915112345678",
            response_id="r-1",
            event_id="ann@example.com/7",
        ),
        "mailto:ann@example.com",
    )
    event = result.feedback
    assert event.user_id == pseudonym("user", "ann@example.com")
    assert event.conversation_id == pseudonym("conversation", "whatsapp:+4915112345678")
    assert event.response_id == "r-1"
    assert event.event_id == pseudonym("event", "ann@example.com/7")
    assert result.source == pseudonym("source", "mailto:ann@example.com")
    assert result.counts == {"email": 3, "phone": 1}


def test_a_numeric_event_id_is_kept() -> None:
    assert redacted(event_id="2125551234").feedback.event_id == "2125551234"
    assert redacted(user_id="2125551234").feedback.user_id == pseudonym("user", "2125551234")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"to": "ann@example.com"}', '{"to": "<EMAIL_1>"}'),
        # An escaped line end is no part of the address; other bytes stay unchanged.
        (
            '{ "a":"\\nann@example.com",  "b":1.50, "c":"\\u00fc" }',
            '{ "a":"\\n<EMAIL_1>",  "b":1.50, "c":"\\u00fc" }',
        ),
        ('{"a":"ann\\u0040example.com"}', '{"a":"<EMAIL_1>"}'),
        ('{"a":"ü ann@example.com"}', '{"a":"ü <EMAIL_1>"}'),
        # Bare numbers become strings, because a placeholder is no JSON number.
        ('{"card": 4111111111111111, "order": 12345}', '{"card": "<CARD_1>", "order": 12345}'),
        ("[2125551234, -1, 1e5]", '["<PHONE_1>", -1, 1e5]'),
        (
            '{"inner": "{\\"card\\": 4111111111111111}"}',
            '{"inner": "{\\"card\\": \\"<CARD_1>\\"}"}',
        ),
        (
            'Here:\n```json\n{"p": 2125551234}\n```\nAsk ann@x.de',
            'Here:\n```json\n{"p": "<PHONE_1>"}\n```\nAsk <EMAIL_1>',
        ),
        (
            'Sure! {"card": 4111111111111111, "a": "x\\nann@x.de"}',
            'Sure! {"card": "<CARD_1>", "a": "x\\n<EMAIL_1>"}',
        ),
        (
            '{"ann@example.com": {"k": "-----BEGIN PRIVATE KEY-----\\nMII\\n-----END PRIVATE '
            'KEY-----"}}',
            '{"<EMAIL_1>": {"k": "<SECRET_1>"}}',
        ),
    ],
)
def test_json_stays_json(text: str, expected: str) -> None:
    assert redact(text) == expected


VALUES = st.sampled_from(
    [
        "ann@example.com",
        "Bob@x.de",
        "+49 30 1234567",
        "(212) 555-1234",
        "030/1234567",
        "2125551234",
        "4111 1111 1111 1111",
        "5555555555554444",
        "DE89 3704 0044 0532 0130 00",
        "203.0.113.9",
        "2001:db8::1",
        "AKIA" + "IOSFODNN7EXAMPLE",
        "https://u:secret@host/x",
        "Bearer abcdef1234567890XYZ",
        "-----BEGIN PRIVATE KEY-----\nMII\n-----END PRIVATE KEY-----",
        "<EMAIL_1>",
        "<CARD_12>",
    ]
)
NOISE = st.sampled_from(
    [
        " ",
        "-",
        "/",
        ".",
        ",",
        ":",
        "\n",
        "@",
        "(",
        ")",
        "+",
        "#",
        "$",
        '"',
        "\\",
        "\\n",
        "{",
        "}",
        "[",
        "]",
        "```",
        "```\n",
        "<",
        ">",
        "`",
        "'",
        " = ",
        "x = ",
        "xs[",
        "order_id: ",
        "phone ",
        "version ",
        "ISBN ",
        "// ",
        " bytes",
        "SELECT * FROM t WHERE id = ",
        "```python\n",
        "2147483647",
        "1.2.3.4",
        "0-306-40615-2",
        "2019-",
        "git@x.de:o/",
    ]
)
TEXTS = st.lists(VALUES | NOISE | st.text(alphabet="aé0149 _x", max_size=4), max_size=12).map(
    "".join
)
JSON = st.recursive(
    TEXTS
    | st.integers(-(10**16), 10**16)
    | st.sampled_from([4111111111111111, 2125551234])
    | st.booleans()
    | st.none()
    | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)


@given(TEXTS, TEXTS, st.none() | TEXTS)
def test_redaction_is_idempotent(before: str, after: str, tag: str | None) -> None:
    once = redacted(
        input=before or "q", output=after, tags=None if tag is None else {"t": tag}
    ).feedback
    again = REDACTOR.redact(once)
    assert again.feedback == once
    assert again.counts == {}


@given(
    st.text(
        alphabet=st.characters(exclude_categories=["Nd", "Cs"], exclude_characters="@"),
        max_size=200,
    )
)
def test_text_without_digits_and_signs_is_unchanged(text: str) -> None:
    assert redact(text) == text


@given(st.lists(JSON, max_size=3) | st.dictionaries(TEXTS, JSON, max_size=3), st.booleans())
def test_json_keeps_its_structure(document: Any, ascii_only: bool) -> None:
    assert _structure(
        json.loads(redact(json.dumps(document, ensure_ascii=ascii_only)))
    ) == _structure(document)


def _structure(value: Any) -> Any:
    """Return the nesting of lists and objects. Leaves and keys may change, and equal keys merge."""
    if isinstance(value, dict):
        return {"keys": bool(value)}
    return [_structure(item) for item in value] if isinstance(value, list) else None


@given(
    VALUES.filter(lambda value: not value.startswith("<")), st.sampled_from([" ", "\n", ", ", "\t"])
)
def test_an_isolated_value_is_found_in_every_context(value: str, gap: str) -> None:
    assert redact(f"so{gap}{value}{gap}it is") == f"so{gap}{redact(value)}{gap}it is"
    assert redact(value) != value


HOSTILE: dict[str, Callable[[int], str]] = {
    "dots": lambda n: "a." * (n // 2) + "@",
    "ats": lambda n: "a@" * (n // 2),
    "labels": lambda n: "a@" + "b." * (n // 2),
    "long labels": lambda n: ("a@" + "b" * 61 + ".") * (n // 64),
    "digits": lambda n: "1" * n,
    "spaced digits": lambda n: "1 " * (n // 2),
    "card prefixes": lambda n: "4111 " * (n // 5),
    "phone prefixes": lambda n: "030 123 " * (n // 8),
    "phones": lambda n: "+4930123456 " * (n // 12),
    "different phones": lambda n: " ".join(f"+4930{1_000_000 + 7 * k}" for k in range(n // 13)),
    "brackets": lambda n: "(" * n + "1",
    "dashes": lambda n: "1-" * (n // 2) + "x",
    "colons": lambda n: "a:" * (n // 2),
    "dotted": lambda n: "1." * (n // 2),
    "ibans": lambda n: "DE89 3704 0044 0532 0130 0 " * (n // 27),
    "keys": lambda n: "-----BEGIN PRIVATE KEY-----" * (n // 27),
    "key bodies": lambda n: "-----BEGIN PRIVATE KEY-----" + ("A" * 64 + "\n") * (n // 65) + "-",
    "tokens": lambda n: "sk-" * (n // 3),
    "web tokens": lambda n: "eyJ" * (n // 3) + " " + "eyJ-" * (n // 4),
    "web token parts": lambda n: "eyJaaaaaaaa." * (n // 12),
    "bearers": lambda n: "bearer " * (n // 7),
    "urls": lambda n: "a://b:c" * (n // 7),
    "url users": lambda n: "://" + "a:" * (n // 2),
    "depth": lambda n: "[" * n,
    "quotes": lambda n: '["' + '\\"' * (n // 2) + '"]',
    "fences": lambda n: "```\n{" * (n // 5) + "a@b.de",
    "blanks behind a key": lambda n: '"' + " " * n + ": 2125551234",
    "escapes": lambda n: "\\u" * (n // 2),
    "backticks": lambda n: "`2125551234" * (n // 11),
    "comments in code": lambda n: "```c\n" + "/*" * (n // 2) + " 2125551234",
    "strings in code": lambda n: "```c\n" + '"\\' * (n // 2) + " 2125551234",
    "long strings in code": lambda n: "```c\n2125551234" + 6 * '"' * (n // 6),
    "statements": lambda n: "SELECT * FROM t WHERE id = 2125551234 " * (n // 38),
    "sums": lambda n: "2125551234 + " * (n // 13),
    "versions": lambda n: "version 1.2.3.4, " * (n // 17),
    "ranges": lambda n: "01.02.2024-" * (n // 11),
    "book numbers": lambda n: "0-306-40615-" * (n // 12),
    "key prefixes": lambda n: "sk-a1b2c3-" * (n // 10),
    "bot tokens": lambda n: "MTabcdefghij1234567890ab." * (n // 25),
    "wide ibans": lambda n: "DE89    3704    0044    0532    0130    0 " * (n // 42),
    "labelled numbers": lambda n: json.dumps({f"id{at}": 2125551234 for at in range(n // 18)}),
    "placeholders": lambda n: "<EMAIL_1>" * (n // 9) + "a@b.de",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_time_is_linear_in_the_text(text: Callable[[int], str]) -> None:
    """Eight times the text may take 16 times as long, which allows for noise; quadratic time would
    be 64 times as long.
    """
    small, large = (min(_seconds(text(size)) for _ in range(3)) for size in (12_500, 100_000))
    assert large < 16 * small + 0.1
    assert large < 5


def _seconds(text: str) -> float:
    started = process_time()
    redact(text)
    return process_time() - started


def test_nested_json_strings_are_redacted() -> None:
    text = "ann@example.com"
    for _ in range(10):
        text = json.dumps([text])
    inner = redact(text)
    for _ in range(10):
        inner = json.loads(inner)[0]
    assert inner == "<EMAIL_1>"


def test_equal_values_in_texts_share_a_placeholder() -> None:
    texts = ["Write to ada@example.com.", "ada@example.com or bob@example.com", "no data"]
    redacted = Redactor(RedactionPolicy()).redact_texts(texts)
    assert list(redacted.texts) == [
        "Write to <EMAIL_1>.",
        "<EMAIL_1> or <EMAIL_2>",
        "no data",
    ]
    assert redacted.counts == {"email": 3}


def test_texts_without_personal_data_stay_as_they_are() -> None:
    texts = ["How do I mend a tent?", "With a needle."]
    assert Redactor(RedactionPolicy()).redact_texts(texts).texts == texts
