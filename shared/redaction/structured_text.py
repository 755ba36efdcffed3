"""Redaction inside JSON: what was JSON before a replacement is JSON after it.

A document (or one in a Markdown fence) is split into its strings and numbers. A string is redacted
in its decoded form, because escapes hide the characters next to a match. A number that is personal
data becomes a string. Its key introduces a value: an order's id is no telephone number. All other
bytes stay unchanged.
"""

import json
import re
from functools import partial
from typing import Protocol

_DECODER = json.JSONDecoder(strict=False, parse_int=str, parse_float=str)
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"|-?\d[\d.eE+-]*+', re.DOTALL)
_FENCE = "```"
_SURROGATE = re.compile(r"\\u[dD]")

_KEY = re.compile(r'"(?P<key>[\w .-]{1,64})"\s{0,8}:\s{0,8}(?:\[[^\[\]"{}]{0,200})?$')


class Replace(Protocol):
    """Replaces personal data in a text that `label` introduces, such as `order_id: `."""

    def __call__(self, text: str, /, *, label: str = "") -> str: ...


def replace_structured(text: str, replace: Replace) -> str:
    """Apply `replace` to each string and number of JSON in `text`, and to other text as a whole."""
    if _is_json(text):
        return _TOKEN.sub(partial(_replace_token, replace), text)
    if _FENCE in text:
        pieces = text.split(_FENCE)
        fenced = [
            _is_json(piece.partition("\n")[2]) if index % 2 else False
            for index, piece in enumerate(pieces)
        ]
        if any(fenced):
            return _FENCE.join(
                _replace_block(piece, replace)
                if is_json
                else _replace_fenced(piece, replace)
                if index % 2
                else replace(piece)
                for index, (piece, is_json) in enumerate(zip(pieces, fenced, strict=True))
            )
    return replace(text)


def _replace_block(piece: str, replace: Replace) -> str:
    language, newline, document = piece.partition("\n")
    return language + newline + replace_structured(document, replace)


def _replace_fenced(piece: str, replace: Replace) -> str:
    """Replace in a block of something else than JSON, which its fences show to be code."""
    return replace(f"{_FENCE}{piece}{_FENCE}").removeprefix(_FENCE).removesuffix(_FENCE)


def _is_json(text: str) -> bool:
    """Return True for a JSON object or array. Line ends inside strings are accepted, as in a key
    pasted by hand.
    """
    if text.lstrip()[:1] not in ("{", "["):
        return False
    try:
        _DECODER.decode(text)
    except (ValueError, RecursionError):
        return False
    return True


def _replace_token(replace: Replace, token: re.Match[str]) -> str:
    written = token.group()
    key = _KEY.search(token.string, max(0, token.start() - 300), token.start())
    label = f"{key['key']}: " if key else ""
    if not written.startswith('"'):
        number = replace(written, label=label)
        return written if number == written else json.dumps(number)
    value = _DECODER.decode(written)
    redacted = replace_structured(value, partial(_replace_value, replace, label))
    if redacted == value:
        return written
    ascii_only = written.isascii() or bool(_SURROGATE.search(written))
    return json.dumps(redacted, ensure_ascii=ascii_only)


def _replace_value(replace: Replace, key: str, text: str, /, *, label: str = "") -> str:
    """Replace in a string, or in JSON that is in it and has keys of its own."""
    return replace(text, label=label or key)
