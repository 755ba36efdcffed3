"""Payment cards and bank accounts, recognized by shape and checksum.

python-stdnum holds the Luhn and ISO 7064 checksums and SWIFT's registry of IBAN structures. It was
chosen over schwifty for its size: it has no dependencies and no directory of banks, and it covers
cards too. Its licence is the LGPL, which allows the use as a separate, unmodified package. This is
the only module that imports `stdnum`.
"""

import re
from collections.abc import Iterator
from functools import cache

from stdnum import iban, luhn, numdb

from shared.redaction.digit_runs import digit_runs, has_long_run
from shared.redaction.pii_match import PiiMatch

# Prefixes and lengths by issuer: Visa, Mastercard, American Express, Diners, Discover, JCB,
# UnionPay, Maestro.
_ISSUER_PATTERN = re.compile(
    r"4(?:\d{15}|\d{18})|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}"
    r"|3[47]\d{13}|3(?:0[0-5]|[689]\d)\d{11,16}|6(?:011|5\d\d|4[4-9]\d)\d{12,15}|35\d{14,17}"
    r"|62\d{14,17}|(?:5[0678]|6[37])\d{11,17}"
)
_GROUP = re.compile(r"\d+")
_MIN_GROUP_DIGITS = 3
_MIN_CARD_DIGITS, _MAX_CARD_DIGITS = 14, 19
_MAX_CARD_GROUPS = _MAX_CARD_DIGITS // _MIN_GROUP_DIGITS

# A table or a line that was aligned separates the groups by tabs or several blanks.
_GAP = r"[ \t\u00a0\u2007\u202f-]{0,4}+"
_IBAN_CHECK_DIGITS = re.compile(rf"[0-9](?<=(?<!\w)[A-Za-z]{{2}}[0-9])[0-9](?={_GAP}[0-9A-Za-z])")
_IBAN_STRUCTURES = numdb.get("iban")
_IBAN_FIELD = re.compile(r"(\d+)!")


def find_cards(text: str) -> Iterator[PiiMatch]:
    """Find card numbers of 14 to 19 digits, in groups of three digits or more, with an issuer's
    prefix and length and a correct Luhn checksum.
    """
    if not has_long_run(text):
        return
    for start, end in digit_runs(text):
        groups = [(match.start(), match.end()) for match in _GROUP.finditer(text, start, end)]
        index = 0
        while index < len(groups):
            count = _card_groups(text, groups, index)
            if count:
                first, last = groups[index][0], groups[index + count - 1][1]
                yield PiiMatch(first, last, "card", _digits(text[first:last]))
            index += count or 1


def find_ibans(text: str) -> Iterator[PiiMatch]:
    """Find IBANs, with or without blanks or tabs: the structure of their country and a correct
    checksum (ISO 7064, mod 97).
    """
    end = 0
    for check_digits in _IBAN_CHECK_DIGITS.finditer(text):
        start = check_digits.start() - 2
        rest = _after_check_digits(text[start : start + 2].upper())
        match = rest.match(text, check_digits.end()) if rest else None
        if match and start >= end:
            value = "".join(filter(str.isalnum, text[start : match.end()])).upper()
            if iban.is_valid(value, check_country=False):
                end = match.end()
                yield PiiMatch(start, end, "iban", value)


@cache
def _after_check_digits(country: str) -> re.Pattern[str] | None:
    """Build the pattern of a country's IBAN after its check digits; None without such a country."""
    structure = _IBAN_STRUCTURES.info(country)[0][1].get("bban")
    if structure is None:
        return None
    length = sum(int(field) for field in _IBAN_FIELD.findall(structure))
    return re.compile(rf"(?:{_GAP}[0-9A-Za-z]){{{length}}}(?!\w)")


def _card_groups(text: str, groups: list[tuple[int, int]], index: int) -> int:
    """Return how many groups from `index` form a card number, the longest if several; 0 if none."""
    digits, card_groups = "", 0
    candidates = groups[index : index + _MAX_CARD_GROUPS]
    for count, (start, end) in enumerate(candidates, start=1):
        if end - start < _MIN_GROUP_DIGITS or len(digits) + end - start > _MAX_CARD_DIGITS:
            break
        digits += text[start:end]
        if (
            len(digits) >= _MIN_CARD_DIGITS
            and _ISSUER_PATTERN.fullmatch(digits)
            # int() reads digits of every script, stdnum only ASCII.
            and luhn.is_valid(str(int(digits)))
        ):
            card_groups = count
    return card_groups


def _digits(text: str) -> str:
    return "".join(filter(str.isdecimal, text))
