"""Parts of a text that are source code: their bare digits are numbers of a program, not of people.

Strings and comments inside code are text like any other.
"""

import re
from collections.abc import Iterator

_FENCE = "```"
_TEXT_LANGUAGES = frozenset(
    [
        "text",
        "txt",
        "plain",
        "plaintext",
        "email",
        "eml",
        "mail",
        "md",
        "markdown",
        "log",
        "csv",
        "tsv",
        "vcf",
        "vcard",
    ]
)
_CODE_LINE = re.compile(
    r"[;{}]\s*$|\w\([^()\n]*\)|^\s*(?:def|class|import|from|return|for|while|if)\b|\w\s*[-+*/]?=\s*\S",
    re.MULTILINE,
)
_INLINE = re.compile(r"`[^`\n]++`")
# Bounded, and ASCII: no mask of an earlier match is a part of an SQL name.
_SQL = re.compile(
    r"\bSELECT\s{1,4}(?:\*|DISTINCT\b|COUNT\b|\d|[\w.]{1,80}\s{0,4}(?:,|\bFROM\b|\bAS\b))"
    r"|\bINSERT\s{1,4}INTO\b|\bDELETE\s{1,4}FROM\b|\bUPDATE\s{1,4}[\w.]{1,80}\s{1,4}SET\b"
    r"|\bVALUES\s{0,4}\(|\bWHERE\s{1,4}[\w.]{1,80}\s{0,4}(?:[=<>!]|(?:NOT\s)?IN\b|BETWEEN\b)"
    r"|\b(?:select\s{1,4}(?:\*|[\w.]{1,80})\s{1,4}from|insert\s{1,4}into|delete\s{1,4}from)"
    r"\s{1,4}[\w.]{1,80}\s{0,4}(?:where\b|values\b|\()",
    re.ASCII,
)
_SQL_END = re.compile(r";|\n\s*\n|```")
# An escape is consumed first, so that no quotation mark is the start of more than one search.
_STRING_OR_COMMENT = re.compile(
    r"\\.|\"\"\"(?:.|\n)*?(?:\"\"\"|\Z)|'''(?:.|\n)*?(?:'''|\Z)"
    r"|\"(?:[^\"\\\n]|\\.)*+\"|'(?:[^'\\\n]|\\.)*+'"
    r"|(?:\#|//|--[ \t]|<!--|%).*|/\*(?:.|\n)*?(?:\*/|\Z)"
)


def code_spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield the start and end of each run of code outside its strings and comments. Runs can
    overlap.
    """
    if _FENCE in text:
        yield from _fenced(text)
    if "`" in text:
        for inline in _INLINE.finditer(text):
            yield from _outside_strings(text, inline.start() + 1, inline.end() - 1)
    end = 0
    for statement in _SQL.finditer(text):
        if statement.start() >= end:
            stop = _SQL_END.search(text, statement.end())
            end = stop.start() if stop else len(text)
            yield from _outside_strings(text, statement.start(), end)


def _fenced(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    for index, piece in enumerate(text.split(_FENCE)):
        if index % 2:
            language, _, body = piece.partition("\n")
            name = language.strip().lower()
            is_code = name not in _TEXT_LANGUAGES if name else bool(_CODE_LINE.search(body))
            if is_code:
                yield from _outside_strings(text, start, start + len(piece))
        start += len(piece) + len(_FENCE)


def _outside_strings(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    for literal in _STRING_OR_COMMENT.finditer(text, start, end):
        if start < literal.start():
            yield start, literal.start()
        start = literal.end()
    if start < end:
        yield start, end
