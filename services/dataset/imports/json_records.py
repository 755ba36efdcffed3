"""Records of JSON Lines, and of one JSON array."""

import codecs
import json
import re
from collections import Counter
from typing import Any, BinaryIO, NoReturn

from services.dataset.imports.records import (
    MAX_RECORD_BYTES,
    InvalidLine,
    RecordFields,
    Records,
    SourceRecord,
    type_name,
)
from services.dataset.imports.text_lines import read_lines
from shared.errors import CommandRefused

_CHUNK_BYTES = 1 << 16
_BLANK = re.compile(r"[ \t\r\n]*")


def read_json_lines(stream: BinaryIO) -> Records:
    """Yield the object of each line; blank lines are skipped."""
    for line in read_lines(stream):
        if isinstance(line.text, InvalidLine):
            yield SourceRecord(line.number, line.text)
        elif line.text.strip():
            yield _parsed(line.number, line.text)


def read_json_array(stream: BinaryIO) -> Records:
    """Yield the elements of an array, one in memory at a time, with the line each starts on.

    Raises CommandRefused where the array itself is not valid JSON: the elements after that place
    cannot be found.
    """
    elements = _ArrayText(stream)
    elements.expect("[")
    if elements.next_character() == "]":
        elements.expect("]")
    else:
        while True:
            elements.next_character()
            yield _parsed(elements.line, elements.take_element())
            if elements.next_character() == "]":
                break
            elements.expect(",")
        elements.expect("]")
    if elements.next_character():
        elements.refuse("text after the end of the array")


def parse_object(text: str) -> RecordFields:
    """Parse a JSON object strictly: no duplicate keys, no NaN. Raises InvalidLine."""
    try:
        value = _STRICT.decode(text)
    except json.JSONDecodeError as error:
        raise InvalidLine(
            f"not JSON: {error.msg} at character {error.pos + 1}; expected one object per line"
        ) from error
    except RecursionError as error:
        raise InvalidLine("nested too deeply") from error
    except ValueError as error:
        raise InvalidLine("a number has too many digits") from error
    if not isinstance(value, dict):
        raise InvalidLine(f"expected an object, found {type_name(value)}")
    return value


def _parsed(line: int, text: str) -> SourceRecord:
    try:
        return SourceRecord(line, parse_object(text))
    except InvalidLine as error:
        return SourceRecord(line, error)


class _ArrayText:
    """The text of an array, read in chunks. `line` is the current line, from 1."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._text = ""
        self._at = 0
        self._ended = False
        self.line = 1

    def next_character(self) -> str:
        """Skip blanks and return the next character without taking it; empty at the end."""
        while True:
            match = _BLANK.match(self._text, self._at)
            self._advance(match.end() if match else self._at)
            if self._at < len(self._text):
                return self._text[self._at]
            if self._ended:
                return ""
            self._read_more()

    def expect(self, character: str) -> None:
        """Take one character. Raises CommandRefused for another one."""
        found = self.next_character()
        if found != character:
            self.refuse(f"expected {character!r}, found {found!r}" if found else "the array ends")
        self._advance(self._at + 1)

    def take_element(self) -> str:
        """Take the element that starts here. Raises CommandRefused if it is no JSON or too long."""
        while True:
            try:
                _, end = _LENIENT.raw_decode(self._text, self._at)
                # A number at the end of the text may continue in the next chunk.
                if end < len(self._text) or self._ended:
                    element = self._text[self._at : end]
                    self._advance(end)
                    return element
            except json.JSONDecodeError as error:
                if self._ended:
                    self.refuse(f"not JSON: {error.msg}")
            except (RecursionError, ValueError) as error:
                self.refuse(f"cannot be parsed: {error}")
            if len(self._text) - self._at > MAX_RECORD_BYTES:
                self.refuse(f"an element is not JSON, or longer than {MAX_RECORD_BYTES:,} bytes")
            self._read_more()

    def refuse(self, reason: str) -> NoReturn:
        raise CommandRefused(
            f"line {self.line}: {reason}; correct it, or write one object per line (JSON Lines), "
            "where one line cannot damage the others"
        )

    def _advance(self, end: int) -> None:
        self.line += self._text.count("\n", self._at, end)
        self._at = end

    def _read_more(self) -> None:
        chunk = self._stream.read(_CHUNK_BYTES)
        self._ended = not chunk
        try:
            more = self._decoder.decode(chunk, final=self._ended)
        except UnicodeDecodeError:
            self.refuse("not UTF-8 on this line or soon after it")
        self._text, self._at = self._text[self._at :] + more, 0


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        [(twice, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise InvalidLine(f"the key {twice[:80]!r} occurs twice in one object; keep one of them")
    return value


def _no_constant(name: str) -> NoReturn:
    raise InvalidLine(f"{name} is not JSON; write a number or null")


_STRICT = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_constant=_no_constant)
_LENIENT = json.JSONDecoder()
