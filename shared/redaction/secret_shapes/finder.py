"""Secrets and tokens with a known shape."""

from collections.abc import Iterator

from shared.redaction.pii_match import PiiMatch
from shared.redaction.secret_shapes.catalogue import SECRET_SHAPES

# Grouped by a character they contain, because many texts contain neither `_` nor `-`.
_MARKERS = {
    sign: tuple(
        word
        for words, _ in SECRET_SHAPES
        for word in words
        if next((s for s in "_-" if s in word), "") == sign
    )
    for sign in ("", "_", "-")
}


def find_secrets(text: str) -> Iterator[PiiMatch]:
    """Find private keys, tokens of known services, passwords in URLs and credentials in
    authorization headers.
    """
    if not any(word in text for sign, words in _MARKERS.items() if sign in text for word in words):
        return
    spans: list[tuple[int, int]] = []
    for words, pattern in SECRET_SHAPES:
        if any(word in text for word in words):
            group = "secret" if pattern.groups else 0
            spans += (match.span(group) for match in pattern.finditer(text))
    for start, end in _merged(spans):
        yield PiiMatch(start, end, "secret", text[start:end])


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start < merged[-1][1]:
            start, end = merged[-1][0], max(end, merged.pop()[1])
        merged.append((start, end))
    return merged
