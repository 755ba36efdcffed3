"""Similarity of two texts, measured on what differs between them.

The segments that both texts have in the same order are left out. Every block of segments that
differs has a similarity of its own, one minus the cost of its changes over its length (at most 400
characters), and that of the texts is the smallest. So long instructions, documents or earlier turns
that both texts share do not make them similar, and one changed sentence counts the same in a short
and in a long text.

    figure, unit, name, negation, operator, opposite, line of code    similarity 0
    typing error                                                      its changed characters
    another form of the same word                                     1
    article, auxiliary verb; kana more or less                        0.5
    another word                                                      its length
"""

from collections import Counter
from collections.abc import Iterator, Sequence

from rapidfuzz.distance import OSA, Levenshtein

from services.dataset.ledger.similarity import word_forms
from services.dataset.ledger.similarity.segments import Segment, segments_of
from services.dataset.ledger.similarity.tokens import Token

_LIGHT_COST = 0.5
_CHARACTER_COST = 1.5
"""Cost of a changed character in a script without blanks, which says more than a letter does."""
_STEM = 4
"""Shortest common beginning of two inflected forms of a word."""
_CONTEXT = 400
"""Longest text that changes are weighed against: some 70 words."""
_ENDINGS = frozenset(word_forms.ENDINGS.split())
_NAME_ENDINGS = frozenset(word_forms.NAME_ENDINGS.split())
_PREFIXES = frozenset(word_forms.PREFIXES.split())


def similarity(first: str, second: str) -> float:
    """Return the similarity of two texts, in [0, 1]."""
    if first == second:
        return 1.0
    # Of several alignments of equal length, the one found depends on the order of the texts.
    first, second = sorted((first, second))
    blocks = _differing_blocks(segments_of(first), segments_of(second))
    return min((_block_similarity(*block) for block in blocks), default=1.0)


def _differing_blocks(
    first: Sequence[Segment], second: Sequence[Segment]
) -> Iterator[tuple[Sequence[Segment], Sequence[Segment]]]:
    """Yield the runs of segments that differ."""
    for (a, b), (c, d) in _differences(
        [segment.key for segment in first], [segment.key for segment in second]
    ):
        yield first[a:b], second[c:d]


def _differences(
    first: Sequence[object], second: Sequence[object]
) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Yield the runs in which two sequences differ, adjacent edits joined."""
    start: tuple[int, int] | None = None
    end = (0, 0)
    for edit in Levenshtein.opcodes(list(map(hash, first)), list(map(hash, second))):
        if edit.tag == "equal":
            if start is not None:
                yield (start[0], end[0]), (start[1], end[1])
            start = None
        else:
            start = start or (edit.src_start, edit.dest_start)
            end = (edit.src_end, edit.dest_end)
    if start is not None:
        yield (start[0], end[0]), (start[1], end[1])


def _block_similarity(first: Sequence[Segment], second: Sequence[Segment]) -> float:
    own, other = _prose(first), _prose(second)
    if own is None or other is None:
        return 0.0
    length = max(sum(map(_length, tokens)) for tokens in (own, other))
    cost = 0.0
    for (a, b), (c, d) in _differences(
        [token.text for token in own], [token.text for token in other]
    ):
        change = _cost(own[a:b], other[c:d])
        if change is None:
            return 0.0
        cost += change
    return max(0.0, 1.0 - cost / min(length, _CONTEXT)) if length else 1.0


def _length(token: Token) -> int:
    """Length of a token with the blank after it, if its script has blanks."""
    return len(token.text) + (token.role in ("word", "name", "light", "decisive"))


def _prose(segments: Sequence[Segment]) -> list[Token] | None:
    """Return the tokens of some segments; None if one of them is code."""
    tokens: list[Token] = []
    for segment in segments:
        if segment.tokens is None:
            return None
        tokens += segment.tokens
    return tokens


def _cost(first: Sequence[Token], second: Sequence[Token]) -> float | None:
    """Return the cost of replacing some tokens by others; None if it changes the meaning."""
    if _decisive(first) != _decisive(second):
        return _misspelling_cost(first, second)
    own, other = (
        [token for token in tokens if token.role != "emoji"] for tokens in (first, second)
    )
    if not own and not other:
        # An emoji more or less is decoration, another one is not.
        return None if first and second else 0.0
    if "".join(token.text for token in own) == "".join(token.text for token in other):
        return 0.0
    if len(own) == len(other):
        total = 0.0
        for before, after in zip(own, other, strict=True):
            change = _word_cost(before, after)
            if change is None:
                return None
            total += change
        return total
    return _uneven_cost(own, other)


def _misspelling_cost(first: Sequence[Token], second: Sequence[Token]) -> float | None:
    """Cost of replacing tokens by misspellings or other forms of them, some of which are decisive;
    None if any is replaced by something else.
    """
    if len(first) != len(second):
        return None
    cost = 0.0
    for before, after in zip(first, second, strict=True):
        roles = {before.role, after.role}
        if before.text == after.text:
            continue
        if roles == {"decisive"}:
            if not _is_inflected(before.text, after.text, _NAME_ENDINGS):
                return None
            cost += 1.0
        elif (
            roles <= {"decisive", "word", "name"} and min(len(before.text), len(after.text)) > _STEM
        ):
            if not _is_slip(before.text, after.text):
                return None
            cost += _slip_cost(before.text, after.text)
        else:
            return None
    return cost


def _uneven_cost(own: list[Token], other: list[Token]) -> float | None:
    """Cost of replacing some tokens by a different number of them."""
    substantial = [[token for token in tokens if not _is_light(token)] for tokens in (own, other)]
    light = _LIGHT_COST * (len(own) + len(other) - sum(map(len, substantial)))
    if len(substantial[0]) == len(substantial[1]):
        pairs = zip(*substantial, strict=True)
        costs = [0.0 if a.text == b.text else _word_cost(a, b) for a, b in pairs]
        known = [cost for cost in costs if cost is not None]
        return None if len(known) < len(costs) else light + sum(known)
    before, after = ("".join(token.text for token in tokens) for tokens in substantial)
    if before and after and _is_slip(before, after):
        return light + _slip_cost(before, after)
    if any(token.role == "name" for tokens in substantial for token in tokens):
        return None
    return light + max(sum(map(_weight, tokens)) for tokens in substantial)


def _decisive(tokens: Sequence[Token]) -> Counter[str]:
    return Counter(token.text for token in tokens if token.role == "decisive")


def _word_cost(before: Token, after: Token) -> float | None:
    """Cost of replacing a word by another; None if it changes the meaning."""
    if before.text == after.text:
        return 0.0
    if before.role == after.role == "light":
        return _LIGHT_COST
    is_name = "name" in (before.role, after.role)
    if _is_slip(before.text, after.text, is_name):
        return _slip_cost(before.text, after.text)
    if is_name or _prefix_differs(before.text, after.text):
        return None
    return max(_weight(before), _weight(after))


def _weight(token: Token) -> float:
    return _CHARACTER_COST if token.role == "character" else float(_length(token))


def _is_light(token: Token) -> bool:
    """True for a token that may be there or not: an article, or hiragana between characters."""
    return token.role == "light" or (
        token.role == "character" and "\u3041" <= token.text <= "\u3096"
    )


def _slip_cost(before: str, after: str) -> float:
    return 1.0 if _is_inflected(before, after, _ENDINGS) else float(OSA.distance(before, after))


def _is_inflected(before: str, after: str, endings: frozenset[str]) -> bool:
    """True for two words that differ in their endings only."""
    shared = next(
        (at for at, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]),
        min(len(before), len(after)),
    )
    return shared >= _STEM and all(
        not ending or ending in endings for ending in (before[shared:], after[shared:])
    )


def _is_slip(before: str, after: str, is_name: bool = False) -> bool:
    """True for a typing error or another form of the same word."""
    longest = max(len(before), len(after))
    if before[0] != after[0] or longest < 4 or _prefix_differs(before, after):
        return False
    if _is_inflected(before, after, _NAME_ENDINGS if is_name else _ENDINGS):
        return True
    allowed = 2 if longest >= 8 else 1
    if is_name:
        allowed = 1 if longest >= 8 else 0
    return bool(OSA.distance(before, after) <= allowed)


def _prefix_differs(before: str, after: str) -> bool:
    """True for two words that differ in a prefix that changes the meaning, or in having one."""
    shared = 0
    for own, other in zip(reversed(before), reversed(after), strict=False):
        if own != other:
            break
        shared += 1
    if shared < 3:
        return False
    prefixes = before[: len(before) - shared], after[: len(after) - shared]
    # The rest may begin with a letter that both prefixes end in.
    return any(
        all(not prefix or prefix in _PREFIXES for prefix in candidates)
        for candidates in (
            prefixes,
            tuple(
                word[: len(prefix) + 1]
                for word, prefix in zip((before, after), prefixes, strict=True)
            ),
        )
    )
