"""Control tokens that occur in text: their strings are encoded as plain text.

A tokenizer turns the string of a control token, such as `<|im_end|>`, into the token, wherever it
occurs. In the text of a message it would end a turn or forge one. So such strings are hidden while
the conversation is rendered; the template's own strings become tokens, hidden ones plain text.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any


class ControlText:
    """The control tokens of a tokenizer: the tokens that it marks as special."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._strings = {
            token: added.content
            for token, added in tokenizer.added_tokens_decoder.items()
            if added.special and added.content
        }
        longest_first = sorted(self._strings.values(), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def occurs_in(self, text: str) -> bool:
        return self._pattern.search(text) is not None

    def hide(self, texts: Sequence[str]) -> tuple[Sequence[str], "HiddenText | None"]:
        """Return texts without strings of control tokens, and what restores them; None if there are
        none.
        """
        if not any(map(self.occurs_in, texts)):
            return texts, None
        hidden = HiddenText(_unused_character(texts))
        return [self._pattern.sub(hidden.replace, text) for text in texts], hidden

    def encode(self, text: str) -> list[int]:
        """Encode text in which every character is plain."""
        options = {"split_special_tokens": True} if self.occurs_in(text) else {}
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, **options)["input_ids"]
        return ids

    def encode_rendered(self, text: str, hidden: "HiddenText | None") -> list[int]:
        """Encode a rendered conversation: control tokens of the template, and the restored text.

        What is between two control tokens is encoded on its own, as a tokenizer does it.
        """
        if hidden is None:
            ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
            return ids
        return [token for part in self._parts(text, hidden) for token in part]

    def _parts(self, text: str, hidden: "HiddenText") -> Iterator[list[int]]:
        encoding = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        plain: list[int] = []
        start = 0
        for token, (first, last) in zip(
            encoding["input_ids"], encoding["offset_mapping"], strict=True
        ):
            # The token may take blanks around its string with it.
            if self._strings.get(token) != text[first:last].strip():
                plain.append(token)
                continue
            yield self._part(text[start:first], plain, hidden)
            yield [token]
            plain, start = [], last
        yield self._part(text[start:], plain, hidden)

    def _part(self, text: str, ids: list[int], hidden: "HiddenText") -> list[int]:
        restored = hidden.restore(text)
        return ids if restored == text else self.encode(restored)


class HiddenText:
    """Strings that were replaced in texts, each by its number between two marks."""

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._pattern = re.compile(f"{re.escape(mark)}(\\d+){re.escape(mark)}")
        self._strings: list[str] = []

    def replace(self, found: re.Match[str]) -> str:
        self._strings.append(found.group())
        return f"{self._mark}{len(self._strings) - 1}{self._mark}"

    def restore(self, text: str) -> str:
        return self._pattern.sub(lambda found: self._strings[int(found.group(1))], text)


def _unused_character(texts: Iterable[str]) -> str:
    """Return a character that is in no text. Those for private use are tried first; there are more
    than a text of a record's size can hold.
    """
    used = set().union(*texts)
    return next(letter for letter in map(chr, range(0xE000, 0x110000)) if letter not in used)
