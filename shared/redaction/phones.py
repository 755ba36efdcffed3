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

from shared.redaction.digit_runs import digit_runs, has_long_run
from shared.redaction.other_numbers import without_other_numbers, without_urls_and_dates
from shared.redaction.pii_match import PiiMatch

_DECIMAL = re.compile(r"\d\.\d+")
_NEXT_NUMBER = re.compile(r"(?<=[ \u00a0/])(?=[+(0])")
_MIN_DIGITS, _MAX_DIGITS = 7, 15  # E.164 sets the maximum
_MIN_DIGITS_WITH_COUNTRY_CODE = 11
_PIECE = re.compile(r"[+(\d].{0,40}(?<=\d)(?!\d)")


@dataclass(frozen=True, slots=True)
class _PhoneMatch:
    """A number in a piece of text, and its E.164 form."""

    start: int
    end: int
    value: str


class PhoneFinder:
    """Finds the numbers of one event: with a leading + those of every country, without it those
    valid in one of `regions`. Digits found once are found again wherever they stand.

    A lookup in the library takes 0.1 ms or more for each run of digits, so an event has at most
    `max_lookups`. Later runs with the length of a number are all matched. So the work for an event
    is bounded, and no number passes.
    """

    def __init__(self, regions: Sequence[str], max_lookups: int = 500) -> None:
        self._regions = regions
        self._country_codes = frozenset(country_code_for_region(region) for region in regions)
        self._lookups_left = max_lookups
        self._cache: dict[str, _PhoneMatch | None] = {}
        self._found: set[str] = set()

    def __call__(self, text: str) -> Iterator[PiiMatch]:
        if not has_long_run(text):
            return
        plain = without_urls_and_dates(text)
        # Most texts have no run that could be one, and need no other look at what surrounds it.
        if next(self._matches(plain), None) is None:
            return
        for match in self._matches(without_other_numbers(plain, self._found)):
            self._found.add("".join(filter(str.isdecimal, text[match.start : match.end])))
            yield match

    def _matches(self, text: str) -> Iterator[PiiMatch]:
        for start, end in digit_runs(text):
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
        """Return the first number in a piece."""
        digits = "".join(filter(str.isdecimal, piece))
        if not _MIN_DIGITS <= len(digits) <= 2 * _MAX_DIGITS or _DECIMAL.fullmatch(piece):
            return None
        self._lookups_left -= 1
        if self._lookups_left < 0:
            return _PhoneMatch(0, len(piece), digits) if len(digits) <= _MAX_DIGITS else None
        if piece.startswith("+"):
            return _first_match(piece, None)
        return self._without_plus(piece) or self._national(piece)

    def _without_plus(self, piece: str) -> _PhoneMatch | None:
        """Match a number with its country code and no +, as messengers write it; only for
        `regions`.
        """
        if len(piece) < _MIN_DIGITS_WITH_COUNTRY_CODE or not piece.isdecimal() or piece[0] == "0":
            return None
        try:
            number = parse("+" + piece)
        except NumberParseException:
            return None
        if number.country_code not in self._country_codes or not is_valid_number(number):
            return None
        return _PhoneMatch(0, len(piece), format_number(number, PhoneNumberFormat.E164))

    def _national(self, piece: str) -> _PhoneMatch | None:
        for region in self._regions:
            # The pattern is a cheap filter: most runs of digits without a separator fail it by
            # their first digits or their length.
            pattern = _national_pattern(region) if piece.isdecimal() else None
            if pattern is None or pattern.fullmatch(piece):
                number = _first_match(piece, region)
                if number is not None:
                    return number
        return None


def _first_match(piece: str, region: str | None) -> _PhoneMatch | None:
    for match in PhoneNumberMatcher(piece, region, Leniency.VALID):
        value = format_number(match.number, PhoneNumberFormat.E164)
        # A parenthesis that is not closed inside is not the number's: (030 1234567).
        is_open = match.raw_string.startswith("(") and ")" not in match.raw_string
        return _PhoneMatch(match.start + is_open, match.end, value)
    return None


@cache
def _national_pattern(region: str) -> re.Pattern[str] | None:
    """Build an approximate pattern of a region's numbers: an optional prefix, and the general
    pattern of national numbers. None for regions that write numbers differently than they dial
    them.
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
    number = metadata.general_desc.national_number_pattern
    return re.compile(rf"(?:{before}|(?:{international}){country}|{country})?(?:{number})")


def _pieces(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Split a run that is too long for one number: before each + ( or 0 after a blank, and then by
    length.
    """
    cuts = [start, end]
    if _digit_count(text[start:end]) > _MAX_DIGITS:
        cuts = [start, *(match.start() for match in _NEXT_NUMBER.finditer(text, start, end)), end]
    for first, last in pairwise(cuts):
        yield from (match.span() for match in _PIECE.finditer(text, first, last))


def _digit_count(text: str) -> int:
    return sum(map(str.isdecimal, text))
