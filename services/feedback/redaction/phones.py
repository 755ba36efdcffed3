"""Telephone numbers, by the rules of each country. The only module that imports `phonenumbers`."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from phonenumbers import (
    Leniency,
    NumberParseException,
    PhoneMetadata,
    PhoneNumberFormat,
    PhoneNumberMatcher,
    country_code_for_region,
    format_number,
    is_valid_number,
    parse,
)

from services.feedback.redaction.digit_runs import digit_runs, has_long_run
from services.feedback.redaction.pii_match import Found

_URL = re.compile(r"\w{2,12}://[^\s\"'<>]++")
_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
_DATE = re.compile(
    r"(?<!\d)(?<!\d[ "
    rf"./-])(?:(?:19|20)\d\d([-./]){_DAY}\1{_DAY}|{_DAY}([-./]){_DAY}\2(?:19|20)?\d\d)(?![-./]?\d)"
)
_DECIMAL = re.compile(r"\d\.\d+")
_NEXT_NUMBER = re.compile(r"(?<=[ \u00a0/])(?=[+(0])")
_FEWEST_DIGITS, _MOST_DIGITS = 7, 15  # E.164 has the upper bound
_FEWEST_WITH_COUNTRY = 11
_PIECE = re.compile(r"[+(\d].{0,40}(?<=\d)(?!\d)")


@dataclass(frozen=True, slots=True)
class _Number:
    """A number in a piece of text, and its E.164 form."""

    start: int
    end: int
    value: str


class PhoneFinder:
    """Finds the numbers of one event: those with a leading + of every country, others where they
    are valid in one of `regions`.

    Asking the library takes a tenth of a millisecond or more for each run of digits, so it is asked
    `patience` times; of what comes after, everything of a number's length is taken for one. The
    work for an event stays bounded, and nothing is let through.
    """

    def __init__(self, regions: Sequence[str], patience: int = 500) -> None:
        self._regions = regions
        self._country_codes = frozenset(country_code_for_region(region) for region in regions)
        self._patience = patience
        self._known: dict[str, _Number | None] = {}

    def __call__(self, text: str) -> Iterator[Found]:
        if not has_long_run(text):
            return
        for start, end in digit_runs(_without_urls_and_dates(text)):
            for piece_start, piece_end in _pieces(text, start, end):
                yield from self._numbers(text, piece_start, piece_end)

    def _numbers(self, text: str, start: int, end: int) -> Iterator[Found]:
        piece = text[start:end]
        if piece not in self._known:
            self._known[piece] = self._number(piece)
        number = self._known[piece]
        if number is not None:
            yield from self._numbers(text, start, start + number.start)
            yield Found(start + number.start, start + number.end, "phone", number.value)
            yield from self._numbers(text, start + number.end, end)

    def _number(self, piece: str) -> _Number | None:
        """The first number in a piece."""
        digits = "".join(filter(str.isdecimal, piece))
        if not _FEWEST_DIGITS <= len(digits) <= 2 * _MOST_DIGITS or _DECIMAL.fullmatch(piece):
            return None
        self._patience -= 1
        if self._patience < 0:
            return _Number(0, len(piece), digits) if len(digits) <= _MOST_DIGITS else None
        if piece.startswith("+"):
            return _matched(piece, None)
        return self._without_plus(piece) or self._national(piece)

    def _without_plus(self, piece: str) -> _Number | None:
        """A number with its country code and no +, as messengers name their users; only for
        `regions`.
        """
        if len(piece) < _FEWEST_WITH_COUNTRY or not piece.isdecimal() or piece[0] == "0":
            return None
        try:
            number = parse("+" + piece)
        except NumberParseException:
            return None
        valid = number.country_code in self._country_codes and is_valid_number(number)
        return (
            _Number(0, len(piece), format_number(number, PhoneNumberFormat.E164)) if valid else None
        )

    def _national(self, piece: str) -> _Number | None:
        for region in self._regions:
            # Digits without a gap are one number or none, and most are none by their first digits
            # or their length.
            shape = _national_shape(region) if piece.isdecimal() else None
            if shape is None or shape.fullmatch(piece):
                number = _matched(piece, region)
                if number is not None:
                    return number
        return None


def _matched(piece: str, region: str | None) -> _Number | None:
    for match in PhoneNumberMatcher(piece, region, Leniency.VALID):
        return _Number(match.start, match.end, format_number(match.number, PhoneNumberFormat.E164))
    return None


@cache
def _national_shape(region: str) -> re.Pattern[str] | None:
    """What the digits of a region's numbers are like, more or less: what precedes a national
    number, if anything, and its general pattern. None where national numbers are written otherwise
    than they are dialled.
    """
    metadata = PhoneMetadata.metadata_for_region(region)
    if (
        metadata is None
        or metadata.general_desc is None
        or metadata.national_prefix_transform_rule is not None
    ):
        return None
    before = metadata.national_prefix_for_parsing or ""
    international = metadata.international_prefix or ""
    country = str(metadata.country_code)
    return re.compile(
        rf"(?:{before}|(?:{international}){country}|{country})?(?:{metadata.general_desc.national_number_pattern})"
    )


def _without_urls_and_dates(text: str) -> str:
    """`text` with letters in place of dates and URLs: the digits of a path are rarely a
    telephone's.
    """
    text = _URL.sub(_letters, text) if "://" in text else text
    return _DATE.sub(_letters, text)


def _letters(match: re.Match[str]) -> str:
    return "x" * len(match.group())


def _pieces(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """A run as it is when it can be one number; a longer one cut before each + ( or 0 that follows
    a blank, and then by length.
    """
    cuts = [start, end]
    if _count(text[start:end]) > _MOST_DIGITS:
        cuts = [start, *(match.start() for match in _NEXT_NUMBER.finditer(text, start, end)), end]
    for first, last in pairwise(cuts):
        yield from (match.span() for match in _PIECE.finditer(text, first, last))


def _count(text: str) -> int:
    return sum(map(str.isdecimal, text))
