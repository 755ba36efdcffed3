"""Payment cards and bank accounts, by their shape and their checksums."""

import re
from collections.abc import Iterator

from services.feedback.redaction.digit_runs import digit_runs, has_long_run
from services.feedback.redaction.pii_match import PiiMatch

# Issuers' prefixes with the lengths that they give out: Visa, Mastercard, American Express, Diners,
# Discover, JCB, UnionPay, Maestro.
_ISSUER_PATTERN = re.compile(
    r"4(?:\d{15}|\d{18})|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}|3(?:0[0-5]|[689]\d)\d{11,16}"
    r"|6(?:011|5\d\d|4[4-9]\d)\d{12,15}|35\d{14,17}|62\d{14,17}|(?:5[0678]|6[37])\d{11,17}"
)
_GROUP = re.compile(r"\d+")
_MIN_GROUP_DIGITS = 3
_SHORTEST, _LONGEST = 14, 19
_MAX_CARD_GROUPS = _LONGEST // _MIN_GROUP_DIGITS

# Lengths of IBANs by country, from the registry that SWIFT keeps for ISO 13616.
_IBAN_LENGTHS = {
    country: int(length)
    for country, length in re.findall(
        r"([A-Z]{2})(\d{2})",
        "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 "
        "DE22 DJ27 DK18 DO28 EE20 EG29 ES24 FI18 FK18 "
        "FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 "
        "JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 "
        "LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 "
        "PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 "
        "SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30",
    )
}
_IBAN_CHECK_DIGITS = re.compile(r"[0-9](?<=(?<!\w)[A-Za-z]{2}[0-9])[0-9](?=[ \u00a0-]?[0-9A-Za-z])")
_IBAN_REST = {
    length: re.compile(rf"(?:[ \u00a0-]?[0-9A-Za-z]){{{length - 4}}}(?!\w)")
    for length in set(_IBAN_LENGTHS.values())
}


def find_cards(text: str) -> Iterator[PiiMatch]:
    """Numbers of 14 to 19 digits that an issuer gives out and whose Luhn checksum is right, in
    groups of three digits or more.
    """
    if not has_long_run(text):
        return
    for start, end in digit_runs(text):
        groups = [(match.start(), match.end()) for match in _GROUP.finditer(text, start, end)]
        at = 0
        while at < len(groups):
            taken = _card_groups(text, groups, at)
            if taken:
                first, last = groups[at][0], groups[at + taken - 1][1]
                yield PiiMatch(first, last, "card", _digits(text[first:last]))
            at += taken or 1


def find_ibans(text: str) -> Iterator[PiiMatch]:
    """IBANs with the length of their country and the right checksum (ISO 7064, mod 97), with or
    without spaces.
    """
    end = 0
    for check_digits in _IBAN_CHECK_DIGITS.finditer(text):
        start = check_digits.start() - 2
        rest = _IBAN_REST.get(_IBAN_LENGTHS.get(text[start : start + 2].upper(), 0))
        match = rest.match(text, check_digits.end()) if rest else None
        if match and start >= end:
            value = "".join(filter(str.isalnum, text[start : match.end()])).upper()
            if (
                int("".join(str(int(character, 36)) for character in value[4:] + value[:4])) % 97
                == 1
            ):
                end = match.end()
                yield PiiMatch(start, end, "iban", value)


def has_luhn_checksum(digits: str) -> bool:
    """ISO/IEC 7812-1: every second digit from the right doubled, the sum of all digits is a
    multiple of ten.
    """
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


def _card_groups(text: str, groups: list[tuple[int, int]], at: int) -> int:
    """How many groups from `at` are a card's number, the most that can be; 0 when they are none."""
    digits, taken = "", 0
    for count, (start, end) in enumerate(groups[at : at + _MAX_CARD_GROUPS], start=1):
        if end - start < _MIN_GROUP_DIGITS or len(digits) + end - start > _LONGEST:
            break
        digits += text[start:end]
        if (
            len(digits) >= _SHORTEST
            and _ISSUER_PATTERN.fullmatch(digits)
            and has_luhn_checksum(digits)
        ):
            taken = count
    return taken


def _digits(text: str) -> str:
    return "".join(filter(str.isdecimal, text))
