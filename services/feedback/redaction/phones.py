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
from services.feedback.redaction.pii_match import PiiMatch

_URL = re.compile(r"\w{2,12}://[^\s\"'<>]++")
_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
_DATE = re.compile(
    r"(?<!\d)(?<!\d[ "
    rf"./-])(?:(?:19|20)\d\d([-./]){_DAY}\1{_DAY}|{_DAY}([-./]){_DAY}\2(?:19|20)?\d\d)(?![-./]?\d)"
)
_DECIMAL = re.compile(r"\d\.\d+")
_NEXT_NUMBER = re.compile(r"(?<=[ \u00a0/])(?=[+(0])")
_FEWEST_DIGITS, _MOST_DIGITS = 7, 15  # E.164 has the upper bound
_MIN_DIGITS_WITH_COUNTRY_CODE = 11
_PIECE = re.compile(r"[+(\d].{0,40}(?<=\d)(?!\d)")


@dataclass(frozen=True, slots=True)
class _PhoneMatch:
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

    def __init__(self, regions: Sequence[str], max_lookups: int = 500) -> None:
        self._regions = regions
        self._country_codes = frozenset(country_code_for_region(region) for region in regions)
        self._lookups_left = max_lookups
        self._cache: dict[str, _PhoneMatch | None] = {}

    def __call__(self, text: str) -> Iterator[PiiMatch]:
        if not has_long_run(text):
            return
        for start, end in digit_runs(_without_urls_and_dates(text)):
            for piece_start, piece_end in _pieces(text, start, end):
                yield from self._numbers(text, piece_start, piece_end)

    def _numbers(self, text: str, start: int, end: int) -> Iterator[PiiMatch]:
        piece = text[start:end]
        if piece not in self._cache:
            self._cache[piece] = self._number(piece)
        number = self._cache[piece]
        if number is not None:
            yield from self._numbers(text, start, start + number.start)
            yield PiiMatch(start + number.start, start + number.end, "phone", number.value)
            yield from self._numbers(text, start + number.end, end)

    def _number(self, piece: str) -> _PhoneMatch | None:
        """The first number in a piece."""
        digits = "".join(filter(str.isdecimal, piece))
        if not _FEWEST_DIGITS <= len(digits) <= 2 * _MOST_DIGITS or _DECIMAL.fullmatch(piece):
            return None
        self._lookups_left -= 1
        if self._lookups_left < 0:
            return _PhoneMatch(0, len(piece), digits) if len(digits) <= _MOST_DIGITS else None
        if piece.startswith("+"):
            return _first_match(piece, None)
        return self._without_plus(piece) or self._national(piece)

    def _without_plus(self, piece: str) -> _PhoneMatch | None:
        """A number with its country code and no +, as messengers name their users; only for
        `regions`.
        """
        if len(piece) < _MIN_DIGITS_WITH_COUNTRY_CODE or not piece.isdecimal() or piece[0] == "0":
            return None
        try:
            number = parse("+" + piece)
        except NumberParseException:
            return None
        valid = number.country_code in self._country_codes and is_valid_number(number)
        return (
            _PhoneMatch(0, len(piece), format_number(number, PhoneNumberFormat.E164))
            if valid
            else None
        )

    def _national(self, piece: str) -> _PhoneMatch | None:
        for region in self._regions:
            # Digits without a gap are one number or none, and most are none by their first digits
            # or their length.
            shape = _national_pattern(region) if piece.isdecimal() else None
            if shape is None or shape.fullmatch(piece):
                number = _first_match(piece, region)
                if number is not None:
                    return number
        return None


def _first_match(piece: str, region: str | None) -> _PhoneMatch | None:
    for match in PhoneNumberMatcher(piece, region, Leniency.VALID):
        return _PhoneMatch(
            match.start, match.end, format_number(match.number, PhoneNumberFormat.E164)
        )
    return None


@cache
def _national_pattern(region: str) -> re.Pattern[str] | None:
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
    text = _URL.sub(_mask, text) if "://" in text else text
    return _DATE.sub(_mask, text)


def _mask(match: re.Match[str]) -> str:
    return "x" * len(match.group())


def _pieces(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """A run as it is when it can be one number; a longer one cut before each + ( or 0 that follows
    a blank, and then by length.
    """
    cuts = [start, end]
    if _digit_count(text[start:end]) > _MOST_DIGITS:
        cuts = [start, *(match.start() for match in _NEXT_NUMBER.finditer(text, start, end)), end]
    for first, last in pairwise(cuts):
        yield from (match.span() for match in _PIECE.finditer(text, first, last))


def _digit_count(text: str) -> int:
    return sum(map(str.isdecimal, text))
