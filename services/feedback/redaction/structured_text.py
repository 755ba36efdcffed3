"""JSON in texts: what is replaced in it leaves it JSON.

A document (or one in a Markdown fence) is taken apart into its strings and numbers. A string is
redacted as the text that it says, not as it is written, since escapes hide what stands next to
them; a number that is personal data becomes a string. All else stays as it is, to the byte.
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
    """`text` after `replace` on each string and number of the JSON in it, and on what is not JSON
    as a whole.
    """
    if _is_json(text):
        return _TOKEN.sub(partial(_replace_token, replace), text)
    if _FENCE in text:
        pieces = text.split(_FENCE)
        fenced = [
            _is_json(piece.partition("\n")[2]) if at % 2 else False
            for at, piece in enumerate(pieces)
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
    """Whether a text is a JSON object or array. Line ends inside strings are let pass, as in a key
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
    said = _DECODER.decode(written)
    left = replace_structured(said, replace)
    if left == said:
        return written
    return json.dumps(left, ensure_ascii=written.isascii() or bool(_SURROGATE.search(written)))
