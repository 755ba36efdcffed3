"""Texts that a base's tokenizer does not return as they were: it would train other texts than those
of the feedback.
"""

from collections.abc import Mapping, Sequence

from services.trainer.data.tokenization import Vocabulary

WORDS = ("left the depot on monday", "a b")
"""Texts that every tokenizer returns, whatever its alphabet."""

OTHER_TEXTS: Mapping[str, Sequence[str]] = {
    "capital letters": ("Left at Noon. ON TIME?",),
    "numbers": ("order 4711 of 3.5, 1,000 and -2", "a  5"),
    "code": ("def f(x):\n    return [x, {'a': 1}]  # 2\n", "\tif (a != b) { c(); }"),
    "white space": ("Steps:\n\n1. open it\n  2. close it", "two  blanks", "\t\ttabs"),
    "punctuation": ("don't , do not ! \u201cquoted\u201d \u2013 and\u2026",),
    "other scripts": ("für Zoë", "Привет, мир", "日本語のテキスト", "مرحبا", "नमस्ते"),
    "emoji": ("thanks 😀👍🏽",),
}


class TextLost(ValueError):
    """A tokenizer that loses plain words or the blanks between them."""


def require_words(vocabulary: Vocabulary) -> None:
    """Raise TextLost if a tokenizer changes plain words."""
    for text in WORDS:
        returned = _returned(vocabulary, text)
        if returned != text:
            raise TextLost(f"its tokenizer makes {returned!r} of {text!r}")


def changed_texts(vocabulary: Vocabulary) -> Sequence[str]:
    """Return the kinds of texts of which at least one is changed."""
    return [
        kind
        for kind, texts in OTHER_TEXTS.items()
        if any(_returned(vocabulary, text) != text for text in texts)
    ]


def _returned(vocabulary: Vocabulary, text: str) -> str:
    return vocabulary.decode_answer(vocabulary.encode_answer(text))
