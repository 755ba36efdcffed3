"""Tokens of a text, with the role that each has in a comparison.

Words are runs of letters and digits in scripts with blanks between words. In scripts without
(Chinese, Japanese, Thai, Lao, Khmer, Burmese) each character is a token, except for the phrases of
the vocabulary. Punctuation is dropped; a symbol that means something (`+`, `€`) is a token. In a
script without a vocabulary of its own, every word counts as a name does.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from services.dataset.ledger.similarity import vocabulary, word_forms
from shared.scripts import MARKS, UNSPACED

Role = Literal["word", "name", "light", "decisive", "emoji", "character", "filler"]

_LETTER = f"(?:(?![{UNSPACED}])[\\w{MARKS}])"
_EMOJI = "[\U0001f000-\U0001faff\u2600-\u27bf\u2b00-\u2bff]"
_SYMBOL = r"[+*/=<>%&|^~@$€£¥₹°§±×÷≤≥≠√∞\\]"


def _phrases(text: str) -> list[str]:
    return sorted({_compatible(phrase) for phrase in text.split()}, key=len, reverse=True)


def _compatible(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFKC", text)


_UNSPACED_FILLERS = frozenset(_phrases(vocabulary.UNSPACED_FILLERS))
_UNSPACED_DECISIVE = frozenset(_phrases(vocabulary.UNSPACED_DECISIVE))
_UNSPACED_LIGHT = frozenset(_phrases(vocabulary.UNSPACED_LIGHT))
_UNSPACED_PHRASE = "|".join(
    sorted(
        _UNSPACED_FILLERS | _UNSPACED_DECISIVE | _UNSPACED_LIGHT,
        key=lambda phrase: (-len(phrase), phrase),
    )
)
_TOKEN = re.compile(
    rf"(?P<number>\d+(?:[.,:/\-]\d+)*)(?P<unit>{_LETTER}*)"
    rf"|(?P<word>{_LETTER}+(?:'{_LETTER}+)?(?:\+\+|\#)?)"
    rf"|(?P<phrase>{_UNSPACED_PHRASE})|(?P<character>[{UNSPACED}])"
    rf"|(?P<emoji>{_EMOJI})|(?P<symbol>{_SYMBOL}|(?<!\S)-(?=\d))"
)
_NUMBER_OR_WORD, _ASCII_NUMBER_OR_WORD = (
    re.compile(rf"(\d+(?:[.,:/\-]\d+)*){letter}*|{letter}+(?:'{letter}+)?")
    for letter in (_LETTER, r"\w")
)
_VIETNAMESE = re.compile("[đơư\u0323\u0309\u031b]")
_ACCENTS = re.compile("[\u0300-\u036f\u0591-\u05c7\u064b-\u065f]")
_KNOWN_SCRIPT = re.compile("[0-9_a-z\u00df-\u024f\u0900-\u097f\u1e00-\u1eff]")
_FOLDED_LETTERS = str.maketrans(
    {"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "ø": "oe", "æ": "ae", "ł": "l"}
    | dict.fromkeys("\u0901\u0902\u093c\u200c\u200d")
)
_CONTRACTIONS = tuple(
    (re.compile(pattern, re.IGNORECASE), expansion)
    for pattern, expansion in word_forms.CONTRACTIONS
)
_SPELLINGS = re.compile("|".join(sorted(word_forms.SPELLINGS, key=len, reverse=True)))


@dataclass(frozen=True, slots=True)
class Token:
    """A token: its text to compare by, and its role."""

    text: str
    role: Role


@lru_cache(maxsize=4096)
def fold(word: str) -> str:
    """Return a word in lower case without accents; `ä` becomes `ae`, `ß` becomes `ss`."""
    folded = word.lower()
    if folded.isascii():
        return folded
    decomposed = unicodedata.normalize("NFD", folded.translate(_FOLDED_LETTERS))
    if not _VIETNAMESE.search(decomposed):
        decomposed = _ACCENTS.sub("", decomposed)
    # A mark without a letter, which would leave nothing, stays.
    return unicodedata.normalize("NFC", decomposed) or folded


def tokens_of(sentence: str) -> tuple[Token, ...]:
    """Return the tokens of a sentence, fillers included."""
    text = _compatible(sentence).replace("’", "'")
    if "'" in text or "n" in text:
        for pattern, expansion in _CONTRACTIONS:
            text = pattern.sub(expansion, text)
    if not text.isascii():
        text = _SPELLINGS.sub(lambda match: word_forms.SPELLINGS[match[0]], text)
    all_capitals = text.isupper()
    tokens: list[Token] = []
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup
        found = match[0]
        if match["number"]:
            tokens.append(Token(match["number"], "decisive"))
            if match["unit"]:
                tokens.append(Token(fold(match["unit"]), "decisive"))
        elif kind == "word":
            is_name = found[0].isupper() and bool(tokens) and not all_capitals
            word = fold(found)
            # Without a vocabulary of the script, an answer may depend on any word.
            tokens.append(_word(word, is_name or not _KNOWN_SCRIPT.match(word)))
        elif kind == "phrase":
            tokens.append(_phrase(found))
        elif kind == "character":
            tokens.append(Token(found, "character"))
        elif kind == "emoji":
            tokens.append(Token(found, "emoji"))
        else:
            tokens.append(Token(found, "decisive"))
    return tuple(tokens)


def numbers_of(text: str) -> list[str]:
    """Return the tokens of a text that are numbers, without the cost of the other ones."""
    # In ASCII, the pattern without the other scripts is the same and takes half the time.
    pattern = _ASCII_NUMBER_OR_WORD if text.isascii() else _NUMBER_OR_WORD
    return [number for number in pattern.findall(_compatible(text)) if number]


def without_fillers(tokens: Iterable[Token]) -> tuple[Token, ...]:
    """Return tokens without phrases of politeness. Longer phrases are removed first."""
    tokens = tuple(tokens)
    kept: list[Token] = []
    at = 0
    while at < len(tokens):
        for length in _FILLER_LENGTHS.get(tokens[at].text, ()):
            if tuple(token.text for token in tokens[at : at + length]) in _FILLERS:
                at += length
                break
        else:
            if tokens[at].role != "filler":
                kept.append(tokens[at])
            at += 1
    return tuple(kept)


def _phrase(text: str) -> Token:
    if text in _UNSPACED_FILLERS:
        return Token(text, "filler")
    return Token(text, "light" if text in _UNSPACED_LIGHT else "decisive")


def _word(text: str, is_name: bool) -> Token:
    text = _SYNONYMS.get(text, text)
    if text in _LIGHT:
        return Token(text, "light")
    if text in _DECISIVE:
        return Token(text, "decisive")
    return Token(text, "name" if is_name else "word")


_DECISIVE = frozenset(map(fold, vocabulary.DECISIVE.split()))
_SYNONYMS = {
    fold(other): fold(first)
    for first, other in map(str.split, vocabulary.SYNONYMS.strip().splitlines())
}
_LIGHT = frozenset(map(fold, vocabulary.LIGHT.split()))
CLOSINGS = frozenset(
    tuple(fold(word) for word in line.split()) for line in vocabulary.CLOSINGS.strip().splitlines()
)
"""Lines that close a letter, as the texts of their tokens."""
_FILLERS = frozenset(
    tuple(token.text for token in tokens_of(line))
    for line in vocabulary.FILLERS.strip().splitlines()
)
_FILLER_LENGTHS: dict[str, tuple[int, ...]] = {
    first: tuple(sorted({len(phrase) for phrase in _FILLERS if phrase[0] == first}, reverse=True))
    for first in {phrase[0] for phrase in _FILLERS}
}
"""Lengths of the phrases that start with a word, the longest first."""
