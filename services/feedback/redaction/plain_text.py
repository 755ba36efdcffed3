"""Personal data in a text, replaced."""

import re
from collections.abc import Callable, Iterable, Sequence

from services.feedback.redaction.pii_match import MASK, Finder, PiiMatch
from services.feedback.redaction.placeholders import PLACEHOLDER, Placeholders

# In JSON that stands inside other text a line's end is written \n: two characters, and none of them
# belongs to what follows.
_ESCAPE = re.compile(r"\\[nrt]")
_ROUNDS = 8
_KEY = re.compile(r'"\s{0,4}:\s{0,4}$')


FindPii = Callable[[str], Sequence[PiiMatch]]


def redact_text(text: str, find: FindPii, placeholders: Placeholders) -> str:
    """`text` with a placeholder for each piece of personal data that `find` finds. Doing it again
    changes nothing.

    A number that stands bare behind a JSON key gets a placeholder in quotes.
    """
    found = find(text)
    return (
        _splice(text, ((hit, _placeholder(text, hit, placeholders)) for hit in found))
        if found
        else text
    )


def find_pii(text: str, finders: Sequence[Finder]) -> list[PiiMatch]:
    """What the finders find, in order and without overlaps: what an earlier one found is hidden
    from the later ones.
    """
    hidden = PLACEHOLDER.sub(lambda match: MASK * len(match.group()), text) if "<" in text else text
    hidden = _ESCAPE.sub("  ", hidden) if "\\" in text else hidden
    found: list[PiiMatch] = []
    # Again until there is nothing more: what was found may have kept what touches it from being
    # read as a number of its own.
    for _ in range(_ROUNDS):
        before = len(found)
        for find in finders:
            new = [hit for hit in find(hidden) if MASK not in hidden[hit.start : hit.end]]
            hidden = (
                _splice(hidden, ((hit, MASK * (hit.end - hit.start)) for hit in new))
                if new
                else hidden
            )
            found += new
        if len(found) == before:
            break
    return sorted(found, key=lambda hit: hit.start)


def _splice(text: str, changes: Iterable[tuple[PiiMatch, str]]) -> str:
    pieces, end = [], 0
    for hit, instead in changes:
        pieces += [text[end : hit.start], instead]
        end = hit.end
    return "".join([*pieces, text[end:]])


def _placeholder(text: str, hit: PiiMatch, placeholders: Placeholders) -> str:
    placeholder = placeholders.placeholder_for(hit.kind, hit.value)
    is_bare = text[hit.start : hit.end].isdecimal() and _KEY.search(
        text, max(0, hit.start - 10), hit.start
    )
    return f'"{placeholder}"' if is_bare else placeholder
