"""Matches and lookalikes of each kind of personal data."""

import phonenumbers
import pytest

from shared.config.redaction_policy import REGIONS, PersonalDataKind, RedactionPolicy
from shared.redaction.phones import PhoneFinder
from shared.redaction.redactor import Redactor
from tests.feedback.feedback_events import make_feedback

REDACTOR = Redactor(RedactionPolicy())


def redact(text: str, redactor: Redactor = REDACTOR) -> str:
    return redactor.redact(make_feedback(output=text)).feedback.output


# Tokens are concatenated here, so that secret scanners do not report this file.
TOKENS = [
    "AKIA" + "IOSFODNN7EXAMPLE",
    "ghp" + "_0123456789abcdefghijABCDEFGHIJ012345",
    "github_pat" + "_11ABCDEFG0abcdefghijkl_mnopqrstuvwx",
    "glpat" + "-abcDEF1234567890abcd",
    "xoxb" + "-123456789012-abcdefABCDEF",
    "AIza" + "SyA-1234567890abcdefghijklmnopqrstu",
    "sk" + "-proj-abcdefGHIJ1234567890abcd",
    "sk" + "-ant-api03-abcdefGHIJ1234567890",
    "sk" + "_live_abcdefghij1234567890",
    "whsec" + "_abcdefghij1234567890ABCD",
    "hf" + "_abcdefghijklmnopqrstuvwxyzABCDEF",
    "eyJhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
    "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMIIEvQ==\n-----END RSA "
    "PRIVATE KEY-----",
]


@pytest.mark.parametrize("token", TOKENS, ids=lambda token: token[:10])
def test_tokens_of_known_formats(token: str) -> None:
    assert redact(f"use {token}, please") == "use <SECRET_1>, please"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Authorization: Bearer abcdef1234567890XYZ", "Authorization: Bearer <SECRET_1>"),
        ("authorization: basic dXNlcjpwYXNzd29yZA==", "authorization: basic <SECRET_1>"),
        ("https://ann:hunter2@example.com/x", "https://ann:<SECRET_1>@example.com/x"),
        ("postgres://u:p%40ss@db:5432", "postgres://u:<SECRET_1>@db:5432"),
        (
            "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "aws_secret_access_key = <SECRET_1>",
        ),
        # Cut off in the middle: the rest is still redacted.
        ("-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\nab", "<SECRET_1>\nab"),
    ],
)
def test_only_the_secret_part_is_replaced(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "sk-learn and sk-this-is-a-long-class-name-for-css",
        "the bearer of very bad news, bearer acknowledgements",
        "AKIA1234",
        "a desk-lamp",
        "eyJhbGciOiJIUzI1NiJ9",
        "The file starts with -----BEGIN PRIVATE KEY----- and then comes the key.",
        "https://example.com:8080/a@b",
        "https://ann@example/x",
    ],
)
def test_lookalikes_of_secrets_are_kept(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    "address",
    [
        "ann@example.com",
        "O'Brien+x@sub.example.co.uk",
        "a.b-c_d@x-y.museum",
        "ann@EXAMPLE.de",
        "jürgen@müller.de",
        "1@x.io",
    ],
)
def test_email_addresses(address: str) -> None:
    assert redact(f"'{address}'.") == "'<EMAIL_1>'."


@pytest.mark.parametrize(
    "text", ["user@localhost", "pkg@1.2.3", "@ann", "a @ b.de", "ann@", "ann@x.1"]
)
def test_lookalikes_of_email_addresses_are_kept(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    "number",
    [
        "+49 30 1234567",
        "+4915112345678",
        "(+49) 30 1234567",
        "+49 (0)30 1234567",
        "+1 (650) 253-0000",
        "+81 3-1234-5678",
        "(212) 555-1234",
        "212.555.1234",
        "2125551234",
        "030/1234567",
        "0151 1234567",
        "020 7946 0958",
        "0044 20 7946 0958",
        "01.42.68.53.00",
        "01 42 68 53 00",
        "01-42-68-53-00",
        "4915112345678",
        "447911123456",
    ],
)
def test_phone_numbers_by_country_rules(number: str) -> None:
    assert redact(f"Call {number}, please") == "Call <PHONE_1>, please"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12345 212-555-1234", "12345 <PHONE_1>"),
        ("0151 1234567 0160 7654321", "<PHONE_1> <PHONE_2>"),
        ("212-555-1234 3rd floor", "<PHONE_1> 3rd floor"),
        ("+49 30 1234567 or 030 1234567", "<PHONE_1> or <PHONE_1>"),
        ("tel:+442079460958", "tel:<PHONE_1>"),
        ("whatsapp-+442079460958", "whatsapp-<PHONE_1>"),
        ("0301234567,0171234567", "<PHONE_1>,<PHONE_2>"),
        ("on 2024-01-15 030 1234567", "on 2024-01-15 <PHONE_1>"),
    ],
)
def test_phone_numbers_next_to_other_numbers(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "The order is 12345.",
        "Order number 70321",
        "order 12345678",
        "INV-0301234567",
        "ticket #0301234567",
        "2024-01-15",
        "2024-01-15 10:30:00",
        "01.02.2024 10:30",
        "15/01/2024 10",
        "20240115",
        "1700000000",
        "12:34:56",
        "$1,234,567.00",
        "1.234.567,89 EUR",
        "$ 2125551234",
        "100 000 000",
        "0.2071234567",
        "3.14159265358979",
        "a94a8fe5ccb19ba61c4c0873d391e987982fbbd3",
        "550e8400-e29b-41d4-a716-446655440000",
        "550e8400-e29b-41d4-a716-030123456700",
        "978-3-16-148410-0",
        "https://shop.example/orders/2125551234",
        "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16",
        "2024/2025",
        "123456789012345678901234567890",
        "+49 12",
    ],
)
def test_other_numbers_are_kept(text: str) -> None:
    assert redact(text) == text


def test_numbers_without_plus_need_a_configured_region() -> None:
    spain, germany = (
        Redactor(RedactionPolicy(regions=("ES",))),
        Redactor(RedactionPolicy(regions=("DE",))),
    )
    assert redact("llame al 612 345 678", spain) == "llame al <PHONE_1>"
    assert redact("llame al 612 345 678", germany) == "llame al 612 345 678"
    assert redact("llame al +34 612 345 678", germany) == "llame al <PHONE_1>"


def test_regions_are_those_of_the_library() -> None:
    assert frozenset(phonenumbers.SUPPORTED_REGIONS) == REGIONS


@pytest.mark.parametrize("region", sorted(REGIONS))
def test_every_region_matches_its_example_as_bare_digits(region: str) -> None:
    """The pattern filter accepts every number that the library accepts."""
    example = phonenumbers.example_number(region)
    assert example is not None
    national = phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.NATIONAL)
    digits = "".join(filter(str.isdecimal, national))
    matches = list(phonenumbers.PhoneNumberMatcher(digits, region, phonenumbers.Leniency.VALID))
    assert len(list(PhoneFinder([region])(digits))) == len(matches if len(digits) >= 7 else [])


def test_after_max_lookups_every_long_number_is_replaced() -> None:
    finder = PhoneFinder(["DE"], max_lookups=1)
    assert [(hit.start, hit.end) for hit in finder("11 111 1111, 22 222 2222, 12345")] == [(13, 24)]


@pytest.mark.parametrize(
    "number",
    [
        "4111111111111111",
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "4111\u00a01111\u00a01111\u00a01111",
        "5555555555554444",
        "2223003122003222",
        "3782-822463-10005",
        "6011000990139424",
        "3530111333300000",
        "30569309025904",
    ],
)
def test_payment_cards(number: str) -> None:
    assert redact(f"card:{number}, 12/27") == "card:<CARD_1>, 12/27"


def test_a_card_in_a_row_of_numbers() -> None:
    assert redact("4111 1111 1111 1111 12/27 123") == "<CARD_1> 12/27 123"


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1112",
        "9999999999999995",
        "4111 1111 1111",
        "41111111111111110000000",
        "x4111111111111111",
    ],
)
def test_lookalikes_of_cards_are_kept(text: str) -> None:
    assert redact(text) == text


def test_a_card_needs_a_correct_luhn_checksum() -> None:
    """Visa's published test number has the check digit 1; no other digit makes it a card."""
    numbers = [f"411111111111111{digit}" for digit in range(10)]
    assert [number for number in numbers if redact(number) != number] == ["4111111111111111"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("DE89 3704 0044 0532 0130 00 BIC COBADEFF", "<IBAN_1> BIC COBADEFF"),
        ("GB29NWBK60161331926819.", "<IBAN_1>."),
        ("NO93 8601 1117 947", "<IBAN_1>"),
        ("be68 5390 0754 7034 please", "<IBAN_1> please"),
        ("MT84MALT011000012345MTLCAST001S", "<IBAN_1>"),
        ("FR14 2004 1010 0505 0001 3M02 606", "<IBAN_1>"),
        ("DE89370400440532013000 or DE89 3704 0044 0532 0130 00", "<IBAN_1> or <IBAN_1>"),
    ],
)
def test_ibans(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "DE89 3704 0044 0532 0130 01",
        "DE89 3704 0044 0532 0130",
        "XX89 3704 0044 0532 0130 00",
        "GB29NWBK60161331926819X",
        "AB12 CD34 EF56",
    ],
)
def test_lookalikes_of_ibans_are_kept(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from 93.184.215.14:80", "from <IP_1>:80"),
        ("93.184.215.14/24", "<IP_1>/24"),
        ("at 203.0.113.9.", "at <IP_1>."),
        ("2001:db8::1: ok", "<IP_1>: ok"),
        ("[2001:db8:0:0:0:0:0:1]:443", "[<IP_1>]:443"),
        ("::ffff:203.0.113.9", "<IP_1>"),
        ("fe80::1%eth0", "<IP_1>%eth0"),
        ("2001:DB8::1 is 2001:db8:0::1", "<IP_1> is <IP_1>"),
        ("ip=203.0.113.9:203.0.113.8", "ip=<IP_1>:<IP_2>"),
    ],
)
def test_ip_addresses(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "version 1.2.3.4",
        "v1.2.3.4",
        "Section 1.2.3.4",
        "1.2.3.4.5",
        "999.1.1.1",
        "192.168.1",
        "127.0.0.1 and ::1",
        "std::vector and a::b",
        "00:1a:2b:3c:4d:5e",
        "12:34:56",
        "::",
    ],
)
def test_lookalikes_of_ip_addresses_are_kept(text: str) -> None:
    assert redact(text) == text


def test_only_the_kinds_of_the_policy_are_redacted() -> None:
    text = (
        "ann@example.com, 030 1234567, 4111 1111 1111 1111, DE89 3704 0044 0532 0130 00, "
        "203.0.113.9, AKIA" + "IOSFODNN7EXAMPLE"
    )
    assert redact(text, Redactor(RedactionPolicy(kinds=()))) == text
    kinds: list[PersonalDataKind] = ["email", "phone", "card", "iban", "ip", "secret"]
    for kind in kinds:
        assert (
            redact(text, Redactor(RedactionPolicy(kinds=(kind,)))).count(f"<{kind.upper()}_1>") == 1
        )
