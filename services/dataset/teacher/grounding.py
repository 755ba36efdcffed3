"""Grounding: the check that a passage says what an example about it says.

The quote has to be in the passage; the numbers, dates and names of question and answer in the
passage or its headings; and those of the answer in the quote, the question or the headings.
The check is one of words: it cannot see that a sentence relates known words wrongly.
"""

import re
import unicodedata

from rapidfuzz import fuzz

from services.dataset.sources.chunking import Chunk
from services.dataset.teacher.reply import TaughtExample

QUOTE_SIMILARITY = 90.0
"""Least similarity of the quote to a part of the passage, in percent of an edit ratio."""

_LEAST_QUOTE = 8
_NUMBER = re.compile(r"(?<!\d)\d{1,3}(?: \d{3})+(?!\d)|\d+(?:[.,'’]\d+)*")
_SEPARATOR = re.compile(r"[.,'’ ]")
_WORD = re.compile(r"[^\W_]+(?:[-'’][^\W_]+)*")
_SENTENCE_START = re.compile(
    r"(?:^|[.!?:;。！？]\s+|\n\s*|[“”\"„(\[*]|[-•]\s+)\s*([^\W\d_][\w'’-]*)"
)
_PASSAGE = re.compile(
    r"\b(?:the|this|that|given|above) (?:passage|text|excerpt|document|snippet|context)\b",
    re.IGNORECASE,
)
# fmt: off
_SPELLED = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
    "twenty",
)
# fmt: on
_NUMBER_WORDS = {word: str(number) for number, word in enumerate(_SPELLED)}


def fault_of(example: TaughtExample, chunk: Chunk) -> str | None:
    """Return the reason why an example is not grounded in its chunk, None if it is.

    Reasons: `refers_to_passage` (the question cannot be understood alone), `quote`, `number` and
    `name` (not in the passage), `not_in_quote` (in the passage, but not in the quote).
    """
    if _PASSAGE.search(example.question):
        return "refers_to_passage"
    passage = _normalised(chunk.text)
    quote = _normalised(example.quote)
    if len(quote) < _LEAST_QUOTE and quote != passage:
        return "quote"
    if quote not in passage and (
        len(quote) > len(passage) or fuzz.partial_ratio(quote, passage) < QUOTE_SIMILARITY
    ):
        return "quote"
    headings = "\n".join([chunk.title, *chunk.headings])
    context = f"{headings}\n{chunk.text}"
    said = f"{example.question}\n{example.answer}"
    if not _numbers(said) <= _numbers(context) | _number_words(context):
        return "number"
    if not _names(example.question) | _names(example.answer) <= _words(context):
        return "name"
    support = f"{headings}\n{example.question}\n{example.quote}"
    if not (
        _numbers(example.answer) <= _numbers(support) | _number_words(support)
        and _names(example.answer) <= _words(support)
    ):
        return "not_in_quote"
    return None


def _normalised(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).lower()
    return " ".join(_WORD.findall(text))


def _numbers(text: str) -> frozenset[str]:
    """Return the numbers of a text. Separators are left out, as `1,000` and `1.000` may be the same
    number; `1.5` and `15` are told apart by the digits after the last separator.
    """
    return frozenset(map(_plain_number, _NUMBER.findall(unicodedata.normalize("NFKC", text))))


def _plain_number(number: str) -> str:
    parts = _SEPARATOR.split(number)
    if len(parts) > 1 and len(parts[-1]) != 3:
        whole, decimals = "".join(parts[:-1]).lstrip("0") or "0", parts[-1].rstrip("0")
        return f"{whole}.{decimals}" if decimals else whole
    return "".join(parts).lstrip("0") or "0"


def _number_words(text: str) -> frozenset[str]:
    return frozenset(_NUMBER_WORDS[word] for word in _words(text) if word in _NUMBER_WORDS)


def _names(text: str) -> frozenset[str]:
    """Return the words with a capital letter, in lower case, but for the first of each sentence. A
    word with a capital or a digit inside, such as `LoRaWAN`, is a name anywhere.
    """
    firsts = {match.start(1) for match in _SENTENCE_START.finditer(text)}
    return frozenset(
        part
        for match in _WORD.finditer(text)
        if (match.start() not in firsts and match[0][0].isupper() and match[0] != "I")
        or any(character.isupper() for character in match[0][1:])
        for part in _stems(match[0].lower())
    )


def _words(text: str) -> frozenset[str]:
    return frozenset(
        part
        for match in _WORD.finditer(unicodedata.normalize("NFKC", text))
        for part in _stems(match[0].lower())
    )


def _stems(word: str) -> tuple[str, ...]:
    """Return the parts of a hyphenated word, without a genitive."""
    parts = re.split(r"-", word)
    return tuple(re.sub(r"['’]s?$", "", part) for part in parts if part)
