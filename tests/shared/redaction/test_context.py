"""Redaction by context: code, arithmetic, dates and special addresses stay."""

import json

import pytest
from pydantic import ValidationError

from shared.config.redaction_policy import RedactionPolicy
from shared.redaction.redactor import Redactor
from tests.feedback.feedback_events import make_feedback

REDACTOR = Redactor(RedactionPolicy())


def redact(text: str, redactor: Redactor = REDACTOR) -> str:
    return redactor.redact(make_feedback(output=text)).feedback.output


@pytest.mark.parametrize(
    "text",
    [
        "xs[1::2]",
        "evens = xs[2000::2] and xs[::2]",
        "a slice such as 1::2",
        "INT_MAX = 2147483647",
        "The largest signed integer is 2147483647.",
        "seed=4155552671",
        "if user_id == 2125551234:",
        "print(2125551234 * 2)",
        "2125551234 + 1 = 2125551235",
        "4294967295 - 2125551234 = 2169416061",
        "table[2125551234]",
        "The file has 2125551234 bytes.",
        "SELECT * FROM users WHERE id = 2125551234;",
        "SELECT name FROM users WHERE id IN (2125551234, 2025550143)",
        "INSERT INTO t (id, n) VALUES\n(2125551234, 'Ada'),\n(2025550143, 'Bob');",
        "delete from users where id > 2125551234",
        "`f(2125551234)`",
        "```python\nf(2125551234)\nm = [01 42 68 53 00]\n```",
        "```\nif (a) { g(2125551234); }\n```",
        "order no. 2125551234",
        "my order 2125551234 has not arrived",
        "Invoice 2125551234, contract 2125551234, Order no. 2125551234",
        "die Rechnung 2125551234 und la commande 2125551234",
        "time.Unix(2125551234, 0)",
        "POST /v1/orders/2125551234 201",
        '{"order_id": 2125551234, "userId": "2125551234"}',
        '{"ids": [2125551234, 2025550143], "x": 1}',
        "ISBN 0-306-40615-2",
        "ISBN 0306406152",
        "3-446-24278-2 or 0-306-40615-2",
        "01-02-2024/05-02-2024",
        "06/2019 - 08/2021",
        "06/2019-08/2021",
        "2024-01-15/2024-02-15",
        "from 01.02.2024-15.03.2024",
        "2019-2020 2021-2022",
    ],
)
def test_numbers_in_their_context_are_kept(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Call us (030 1234567) today", "Call us (<PHONE_1>) today"),
        ("Call us ((030) 1234567) today", "Call us (<PHONE_1>) today"),
        ("phone = 2125551234", "phone = <PHONE_1>"),
        ("my number: 2125551234", "my number: <PHONE_1>"),
        ("caller id: 2125551234", "caller id: <PHONE_1>"),
        ("customer 2125551234", "customer <PHONE_1>"),
        ("GET /call/2125551234", "GET /call/<PHONE_1>"),
        ("reorder: 2125551234", "reorder: <PHONE_1>"),
        ("Ann <2125551234>", "Ann <<PHONE_1>>"),
        ("<td>2125551234</td>", "<td><PHONE_1></td>"),
        ("Ann=2125551234", "Ann=<PHONE_1>"),
        ("SELECT * FROM t WHERE phone = '2125551234'", "SELECT * FROM t WHERE phone = '<PHONE_1>'"),
        ('```python\nf("call 030 1234567")\n```', '```python\nf("call <PHONE_1>")\n```'),
        ("```python\nf(1)  # ask 030 1234567\n```", "```python\nf(1)  # ask <PHONE_1>\n```"),
        ("```text\nAnn 2125551234\n```", "```text\nAnn <PHONE_1>\n```"),
        ('{"phone": 2125551234, "id": 7}', '{"phone": "<PHONE_1>", "id": 7}'),
        ("before 2024-01-15/2024-02-15 030 1234567", "before 2024-01-15/2024-02-15 <PHONE_1>"),
    ],
)
def test_telephone_numbers_in_code_and_lists_are_found(text: str, expected: str) -> None:
    assert redact(text) == expected


def test_digits_found_in_one_text_are_found_in_all() -> None:
    event = REDACTOR.redact(
        make_feedback(input="Call 2125551234 about it", output='{"order_id": 2125551234}')
    ).feedback
    assert event.messages[0].content == "Call <PHONE_1> about it"
    assert json.loads(event.output) == {"order_id": "<PHONE_1>"}


@pytest.mark.parametrize(
    "text",
    [
        "netmask 255.255.255.0, wildcard 0.0.0.255",
        "10.0.0.1/24 and 192.168.1.1, 172.16.0.0/12",
        "169.254.169.254, 224.0.0.1 and 100.64.0.1",
        "Use 8.8.8.8, 1.1.1.1 or 2001:4860:4860::8888",
        "ff02::1",
        "pip install package==1.2.3.4",
        "upgrade from 4.2.1.3 to 4.2.1.4",
        "versions 4.2.1.3, 4.2.1.4 and 5.0.0.1",
        "image: registry.example.com/web:93.4.2.1",
        "npm i left-pad@93.4.2.1",
        "93.4.2.1 was released, 93.4.2.2 released",
        "バージョンは 93.4.2.1 です。",
        "la versión 93.4.2.1, a versão 93.4.2.1, wersja 93.4.2.1",
        '{"version": "4.2.1.3"}',
        "Mozilla/5.0 Chrome/91.0.44.7",
    ],
)
def test_special_addresses_and_versions_are_kept(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    "before",
    ["version 4.2.1.3, ", "ssh ann-marie@", "left-pad@", "src/dst:", "from:", "released to "],
)
def test_an_address_after_other_words_is_found(before: str) -> None:
    assert redact(f"{before}93.184.215.14") == f"{before}<IP_1>"
    assert redact("ip == 93.184.215.14") == "ip == <IP_1>"


@pytest.mark.parametrize(
    "text",
    [
        "![logo](img/logo@2x.png)",
        "icon@3x.webp and app@1.2.min.js",
        "git clone git@github.com:o/r.git",
        "ssh://git@example.com/o/r.git",
        '<input id="sk-estimator-id-1-label-for-input" class="sk-toggleable__control sk-hidden">',
        "#sk-container-id-12 div.sk-parallel-item-label-container",
    ],
)
def test_files_repositories_and_html_ids_are_kept(text: str) -> None:
    assert redact(text) == text


def test_a_person_at_a_host_is_found() -> None:
    assert redact("scp ann@example.com:/srv/x .") == "scp <EMAIL_1>:/srv/x ."
    assert redact("mail git@example.com") == "mail <EMAIL_1>"


# Tokens are concatenated and regular, so that secret scanners do not report this file.
HEX, LETTERS = "0123456789abcdef" * 4, "abcDEF0123" * 12
TOKENS = [
    "gsk" + "_" + LETTERS[:52],
    "xai" + "-" + LETTERS[:80],
    "dapi" + HEX[:32],
    "dapi" + HEX[:32] + "-2",
    "lsv2" + "_pt_" + HEX[:32] + "_" + HEX[:10],
    "lsv2" + "_sk_" + HEX[:32] + "_" + HEX[:10],
    "ls" + "__" + HEX[:32],
    "MT" + LETTERS[:22] + "." + "GaBcDe" + "." + LETTERS[:38],
    LETTERS[:52] + "JQQJ" + "99" + LETTERS[:26],
    "ab1" + "8Q" + "~" + LETTERS[:34],
    "pplx" + "-" + LETTERS[:48],
    "r8" + "_" + LETTERS[:37],
    "nvapi" + "-" + LETTERS[:64],
    "shpat" + "_" + HEX[:32],
    "sk" + "-" + LETTERS[:48],
    "sk" + "-or-v1-" + HEX,
    "sk" + "-svcacct-a-B_" + LETTERS[:40],
]


@pytest.mark.parametrize("token", TOKENS, ids=range(len(TOKENS)))
def test_tokens_of_the_catalogue(token: str) -> None:
    assert redact(f"use {token}, please") == "use <SECRET_1>, please"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "DefaultEndpointsProtocol=https;Account" + f"Key={LETTERS[:86]}==;",
            "DefaultEndpointsProtocol=https;AccountKey=<SECRET_1>;",
        ),
        ("Ocp-Apim-Subscription-Key: " + HEX[:32], "Ocp-Apim-Subscription-Key: <SECRET_1>"),
        ('{"api-key": "' + HEX[:32] + '"}', '{"api-key": "<SECRET_1>"}'),
        ("AZURE_OPENAI_KEY=" + HEX[:32], "AZURE_OPENAI_KEY=<SECRET_1>"),
        (
            "https://discord.com/api/webhooks/" + "123456789012345678/" + LETTERS[:68],
            "https://discord.com/api/webhooks/123456789012345678/<SECRET_1>",
        ),
    ],
)
def test_secrets_known_by_what_introduces_them(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("０３０ １２３４５６７", "<PHONE_1>"),
        ("４１１１ １１１１ １１１１ １１１１", "<CARD_1>"),
        ("ＤＥ８９ ３７０４ ００４４ ０５３２ ０１３０ ００", "<IBAN_1>"),
        ("ａｎｎ＠ｅｘａｍｐｌｅ．ｃｏｍ", "<EMAIL_1>"),
        ("９３．１８４．２１５．１４", "<IP_1>"),
        ("٠٣٠ ١٢٣٤٥٦٧", "<PHONE_1>"),
        ("DE89\t3704\t0044\t0532\t0130\t00", "<IBAN_1>"),
        ("DE89  3704  0044  0532  0130  00", "<IBAN_1>"),
    ],
)
def test_values_in_other_digits_and_columns(text: str, expected: str) -> None:
    assert redact(f"it is {text} there") == f"it is {expected} there"


ALLOWED = Redactor(
    RedactionPolicy(
        allow=(
            "acme.example",
            "press@other.example",
            "030 1234567",
            "+49 30 555*",
            "93.184.215.0/24",
            "DE89 3704 0044 0532 0130 00",
        ),
    )
)


@pytest.mark.parametrize(
    "text",
    [
        "Write to help@acme.example or ann@shop.ACME.example.",
        "press@other.example",
        "+49 30 1234567, (030) 1234567",
        "+49 30 5551234",
        "93.184.215.14",
        "DE89370400440532013000",
    ],
)
def test_allowed_values_stay(text: str) -> None:
    assert redact(text, ALLOWED) == text
    assert redact(text) != text


def test_other_values_than_the_allowed_are_redacted() -> None:
    text = "ann@notacme.example, ann@other.example, +49 30 7654321, 93.184.216.14"
    assert redact(text, ALLOWED) == "<EMAIL_1>, <EMAIL_2>, <PHONE_1>, <IP_1>"
    secret = "https://u:" + "hunter2@acme.example/x"
    assert redact(secret, ALLOWED) == "https://u:<SECRET_1>@acme.example/x"


def test_an_allowed_address_is_still_no_identifier() -> None:
    event = ALLOWED.redact(make_feedback(user_id="ann@acme.example")).feedback
    assert event.user_id == REDACTOR.pseudonymize("user", "ann@acme.example")
    assert event.user_id == ALLOWED.pseudonymize("user", "ann@acme.example")


@pytest.mark.parametrize("entry", ["acme", "", "a b.example", "@", "+*", "*", "10.0.0.0/40"])
def test_an_entry_that_allows_nothing_is_an_error(entry: str) -> None:
    with pytest.raises(ValidationError, match="expected a domain"):
        RedactionPolicy(allow=(entry,))


def test_a_policy_without_the_new_keys_keeps_its_digest() -> None:
    assert set(RedactionPolicy().model_dump(mode="json")) == {"kinds", "regions", "names"}
