"""Redaction of plain text: run the finders, then replace their matches."""

import re
from collections.abc import Callable, Iterable, Sequence

from shared.redaction.pii_match import MASK, Finder, PiiMatch
from shared.redaction.placeholders import PLACEHOLDER, Placeholders

# In JSON inside other text a line end is written \n: two characters, of which neither belongs to
# the following word.
_ESCAPE = re.compile(r"\\[nrt]")
_MAX_ROUNDS = 8
_KEY = re.compile(r'"\s{0,4}:\s{0,4}$')


FindPii = Callable[[str], Sequence[PiiMatch]]


def redact_text(text: str, find: FindPii, placeholders: Placeholders) -> str:
    """Replace each match of `find` with a placeholder. Idempotent.

    A bare number after a JSON key gets a placeholder in quotes.
    """
    matches = find(text)
    if not matches:
        return text
    return _splice(text, ((match, _placeholder(text, match, placeholders)) for match in matches))


def find_pii(text: str, finders: Sequence[Finder]) -> list[PiiMatch]:
    """Return the matches of all finders, in order and without overlaps. Matches of earlier finders
    are masked for later ones.
    """
    masked = text
    if "<" in text:
        masked = PLACEHOLDER.sub(lambda placeholder: MASK * len(placeholder.group()), text)
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
    return sorted(matches, key=lambda match: match.start)


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
