"""Numbers that their context shows to be no telephone numbers: in code and arithmetic, dates and
their ranges, book numbers, identifiers, quantities, and the digits of URLs and IP addresses.

A number that is introduced as a telephone number stays one.
"""

import re
from collections.abc import Container, Iterator

from shared.redaction.code_spans import code_spans

_URL = re.compile(r"\w{2,12}://[^\s\"'<>]++")

# Each pattern first tests for a digit: the cheapest test, made at every character.
_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
_YEAR = r"(?:19|20)\d\d"
_MONTH = rf"(?:(?:0?[1-9]|1[0-2])[-./]{_YEAR}|{_YEAR}[-./](?:0[1-9]|1[0-2]))"


def _date(number: int) -> str:
    """Build the pattern of a date, whose groups have names with this number."""
    return (
        rf"(?:{_YEAR}(?P<y{number}>[-./]){_DAY}(?P=y{number}){_DAY}"
        rf"|{_DAY}(?P<d{number}>[-./]){_DAY}(?P=d{number})(?:19|20)?\d\d)"
    )


_DATE = re.compile(rf"(?=\d)(?<!\d)(?<!\d[ ./-]){_date(0)}(?![-./]?\d)")
_TO = r"\s?(?:[-–—/~]|\.\.|to|until|through|and|bis|und|au|à)\s?"
_RANGE = re.compile(
    rf"(?=\d)(?<!\d)(?<![\d)][ ./-])(?:{_date(1)}{_TO}{_date(2)}|{_MONTH}{_TO}{_MONTH}"
    rf"|{_YEAR}{_TO}{_YEAR})(?!\d|[-./]\d)"
)

_BOOK = re.compile(
    r"(?=\d)(?<![\d-])(?:97[89](?P<gap>[- ]?)\d{1,5}(?P=gap)\d{1,7}(?P=gap)\d{1,7}(?P=gap)\d"
    r"|\d{1,5}-\d{1,7}-\d{1,7}-[\dX])(?![\d-])"
)
_SERIAL = re.compile(
    r"\b(?:ISBN(?:-1[03])?|ISSN|EAN|GTIN|UPC|DOI|PMID|CAS|SKU):?\s{0,3}\d(?:[-./ ]?\d){6,16}[Xx]?\b"
)

_OCTET = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
_DOTTED = re.compile(rf"(?=\d)(?<![\d.]){_OCTET}(?:\.(?!0\d){_OCTET}){{3}}(?![\d.])")

_PHONE_NAME = re.compile(
    r"phone|\btel(?![a-z])|telef|telnr|mobil|handy|\bcell|fax|caller|whatsapp|sms|msisdn|rufn"
    r"|hotline|\bdial|signal",
    re.IGNORECASE,
)
_PHONE_WORD = re.compile(
    rf"{_PHONE_NAME.pattern}|call|contact|kontakt|number|nummer", re.IGNORECASE
)
_LEADING_PLUS = re.compile(r"(?<![\w)\]])\+\d")

# What surrounds a number is read as ASCII: the mask of an earlier match is no part of a name.
_BARE = re.compile(r"(?<![\w.+#])[1-9]\d{6,14}(?!\d|\.\d)", re.ASCII)
_LIMITS = frozenset(str(2**bits + change) for bits in (31, 32) for change in (-1, 0, 1))
_ASSIGNMENT = re.compile(
    r"(?<!\w)(?:[a-z_]\w{0,40}|[A-Z][A-Z0-9_]{1,40}|[A-Z]\w{0,40}_\w{0,40})[\])]?\s{0,3}"
    r"(?:[-+*/%&|^:=!]|<<|>>)?=\s{0,3}[\[(]?$",
    re.ASCII,
)
_NUMBER_BEFORE = re.compile(
    r"\s(?:[<>]=?|==|!=)\s{1,3}$|\w\[$|[\w)\]]\s{0,3}(?:\*\*?|[%^×÷])\s{0,3}$|[\w)\]] \+ $"
    r"|[\d)]\s{0,3}[=≈]\s{0,3}$|/(?:order|invoice|ticket|item|article|product)s?/$",
    re.ASCII,
)
_NUMBER_AFTER = re.compile(
    r"\s{0,3}(?:\*\*?|[%^×÷])\s{0,3}[\w(]| \+ [\w(]|\s(?:[<>]=?|==|!=)\s"
    r"|\s{0,3}[=≈]\s{0,3}[\d(-]|\s{0,3}[-+/]\s{0,3}\d{1,20}\s{0,3}[=≈]"
    r"|\s?(?:bytes?|bits?|[KMGT]i?B|[mµn]s|px|rows?|records?|tokens?|Hz|USD|EUR|GBP|[€$£])(?!\w)",
    re.ASCII,
)
_IDENTIFIER = re.compile(
    r"(?:(?:\b|_)[Ii][Dd]s?|(?<=[a-z])I[Dd]s?|(?:\b|_)(?:ID|seed|hash|timestamp|pid|serial|offset|count"
    r"|size))$"
    r"|(?i:order|invoice|ticket|case|batch|tracking|article|item|account|customer|contract)[ _-]?"
    r"(?:no\.?|nr\.?|number|#)$"
    # A person may follow "account" or "customer", and so a telephone number.
    r"|\b(?i:orders?|invoice|ticket|contract|reference|Bestellung|Rechnung|commande|facture)$"
    r"|\bUnix\($",
    re.ASCII,
)
# Of a list, every number is introduced by what introduces the first.
_INTRODUCED = re.compile(r"[\"'`]?\s{0,3}[:=#]?\s{0,3}(?:\[[\d,\s\"'`]{0,60})?[\"'`]?$")
_DIGITS = re.compile(r"\d+")
_CONTEXT = 80


def without_other_numbers(text: str, phones: Container[str] = ()) -> str:
    """Return a text of the same length with these numbers masked by letters, except for digits that
    are known to be a telephone number. URLs and dates are masked already.
    """
    text = _RANGE.sub(_masked, text)
    text = _DOTTED.sub(_masked, text)
    text = _SERIAL.sub(_masked, _BOOK.sub(_masked_book, text))
    pieces, end = [], 0
    for start, stop in sorted([*_bare_numbers(text, phones), *_numbers_of_code(text, phones)]):
        if stop > end:
            start = max(start, end)
            pieces += [text[end:start], "x" * (stop - start)]
            end = stop
    return "".join([*pieces, text[end:]])


def without_urls_and_dates(text: str) -> str:
    """Return a text of the same length with URLs and dates masked by letters: the digits of a path
    are rarely a telephone number.
    """
    text = _URL.sub(_masked, text) if "://" in text else text
    return _DATE.sub(_masked, text)


def is_identifier(name: str) -> bool:
    """True for the name of a number that identifies or counts something, such as `order_id`."""
    return _IDENTIFIER.search(name) is not None and not _PHONE_NAME.search(name)


def _bare_numbers(text: str, phones: Container[str]) -> Iterator[tuple[int, int]]:
    """Yield the places of digits without separators that are numbers by what surrounds them."""
    for number in _BARE.finditer(text):
        start, end = number.span()
        before = text[max(0, start - _CONTEXT) : start].rpartition("\n")[2]
        if number.group() in phones:
            continue
        if number.group() in _LIMITS or _is_number(before, text[end : end + _CONTEXT]):
            yield start, end


def _is_number(before: str, after: str) -> bool:
    if _NUMBER_BEFORE.search(before) or _NUMBER_AFTER.match(after):
        return True
    if assignment := _ASSIGNMENT.search(before):
        return not _PHONE_WORD.search(assignment.group())
    introduced = _INTRODUCED.search(before)
    return introduced is not None and is_identifier(before[: introduced.start()])


def _numbers_of_code(text: str, phones: Container[str]) -> Iterator[tuple[int, int]]:
    """Yield the places of digits in lines of code without a name or + of a telephone number."""
    for start, end in code_spans(text):
        line_start = start
        for line in text[start:end].splitlines(keepends=True):
            if not _PHONE_NAME.search(line) and not _LEADING_PLUS.search(line):
                for digits in _DIGITS.finditer(line):
                    if digits.group() not in phones:
                        yield line_start + digits.start(), line_start + digits.end()
            line_start += len(line)


def _masked(match: re.Match[str]) -> str:
    return "x" * len(match.group())


def _masked_book(match: re.Match[str]) -> str:
    written = match.group()
    digits = [10 if sign == "X" else int(sign) for sign in written if sign not in "- "]
    if len(digits) == 13:
        is_book = (sum(digits[::2]) + 3 * sum(digits[1::2])) % 10 == 0
    else:
        is_book = (
            len(digits) == 10
            and sum(weight * digit for weight, digit in zip(range(10, 0, -1), digits, strict=True))
            % 11
            == 0
        )
    return _masked(match) if is_book else written
