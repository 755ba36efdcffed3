"""Redaction inside JSON: what was JSON before a replacement is JSON after it.

A document (or one in a Markdown fence) is split into its strings and numbers. A string is redacted
in its decoded form, because escapes hide the characters next to a match. A number that is personal
data becomes a string. All other bytes stay unchanged.
"""

import json
import re
from collections.abc import Callable
from functools import partial

_DECODER = json.JSONDecoder(strict=False, parse_int=str, parse_float=str)
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"|-?\d[\d.eE+-]*+', re.DOTALL)
_FENCE = "```"
_SURROGATE = re.compile(r"\\u[dD]")

Replace = Callable[[str], str]


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
                _replace_block(piece, replace) if is_json else replace(piece)
                for piece, is_json in zip(pieces, fenced, strict=True)
            )
    return replace(text)


def _replace_block(piece: str, replace: Replace) -> str:
    language, newline, document = piece.partition("\n")
    return language + newline + replace_structured(document, replace)


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
    if not written.startswith('"'):
        number = replace(written)
        return written if number == written else json.dumps(number)
    value = _DECODER.decode(written)
    redacted = replace_structured(value, replace)
    if redacted == value:
        return written
    ascii_only = written.isascii() or bool(_SURROGATE.search(written))
    return json.dumps(redacted, ensure_ascii=ascii_only)
