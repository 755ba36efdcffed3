"""Redaction of plain text: run the finders, then replace their matches."""

import re
import sys
import unicodedata
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import replace

from shared.redaction.pii_match import MASK, Finder, PiiMatch
from shared.redaction.placeholders import PLACEHOLDER, Placeholders

# In JSON inside other text a line end is written \n: two characters, of which neither belongs to
# the following word.
_ESCAPE = re.compile(r"\\[nrt]")
_MAX_ROUNDS = 8
# Full-width letters, digits and signs, and the digits of every script, one character each: values
# are found however they are typed.
_ASCII_FORMS = {0xFEE0 + code: code for code in range(0x21, 0x7F)} | {
    code: str(unicodedata.decimal(chr(code)))
    for code in range(0x80, sys.maxunicode + 1)
    if chr(code).isdecimal()
}
_KEY = re.compile(r'"\s{0,4}:\s{0,4}$')

FindPii = Callable[[str], Sequence[PiiMatch]]


def redact_text(text: str, find: FindPii, placeholders: Placeholders, label: str = "") -> str:
    """Replace each match of `find` with a placeholder. Idempotent.

    A bare number after a JSON key gets a placeholder in quotes. `label` is what introduces the text
    where it stands, such as its key; it is read, and not replaced.
    """
    matches = _labelled(find, label, text) if label else find(text)
    if not matches:
        return text
    return _splice(text, ((match, _placeholder(text, match, placeholders)) for match in matches))


def find_pii(
    text: str, finders: Sequence[Finder], allowed: Container[PiiMatch] = ()
) -> list[PiiMatch]:
    """Return the matches of all finders, in order and without overlaps, except allowed ones.
    Matches of earlier finders are masked for later ones.
    """
    masked = text if text.isascii() else text.translate(_ASCII_FORMS)
    if "<" in text:
        masked = PLACEHOLDER.sub(lambda placeholder: MASK * len(placeholder.group()), masked)
    if "\\" in text:
        masked = _ESCAPE.sub("  ", masked)
    matches: list[PiiMatch] = []
    # Repeated until there are no new matches: a match may have kept adjacent digits from being read
    # as a number of their own.
    for _ in range(_MAX_ROUNDS):
        before = len(matches)
        for find in finders:
            new = [match for match in find(masked) if MASK not in masked[match.start : match.end]]
            if new:
                masked = _splice(
                    masked, ((match, MASK * (match.end - match.start)) for match in new)
                )
                matches += new
        if len(matches) == before:
            break
    kept = (match for match in matches if match not in allowed)
    return sorted(kept, key=lambda match: match.start)


def _labelled(find: FindPii, label: str, text: str) -> Sequence[PiiMatch]:
    """Find matches in a text as it stands after its label."""
    start = len(label)
    matches = find(label + text)
    if any(match.start < start < match.end for match in matches):
        return find(text)
    return [
        replace(match, start=match.start - start, end=match.end - start)
        for match in matches
        if match.start >= start
    ]


def _splice(text: str, replacements: Iterable[tuple[PiiMatch, str]]) -> str:
    pieces, end = [], 0
    for match, replacement in replacements:
        pieces += [text[end : match.start], replacement]
        end = match.end
    return "".join([*pieces, text[end:]])


def _placeholder(text: str, match: PiiMatch, placeholders: Placeholders) -> str:
    placeholder = placeholders.placeholder_for(match.kind, match.value)
    is_bare = text[match.start : match.end].isdecimal() and _KEY.search(
        text, max(0, match.start - 10), match.start
    )
    return f'"{placeholder}"' if is_bare else placeholder
