"""Code blocks of Markdown, as models write them."""

import re

_FENCE = re.compile(r"`{3,}|~{3,}")
_INFO = re.compile(r"[\w+#.-]+\s*$")


def has_open_block(answer: str) -> bool:
    """Return True if a code block is opened and not closed.

    A fence opens a block at the beginning of a line, or with a language at its end, and closes it
    at the beginning or the end of a line. Other fences are code within a line.
    """
    opening: str | None = None
    is_certain = False
    for line in answer.splitlines():
        text = line.strip().lstrip("> ")
        if opening is not None:
            if _closes(text, opening):
                opening = None
            continue
        fences = list(_FENCE.finditer(text))
        if len(fences) % 2 == 0:
            continue
        last = fences[-1]
        rest = text[last.end() :]
        is_first = last.start() == 0
        if is_first or (last.group().startswith("`") and (not rest or _INFO.match(rest))):
            opening = last.group()
            # A fence alone at the end of a sentence may be what the sentence is about.
            is_certain = is_first or bool(rest)
    return opening is not None and is_certain


def _closes(line: str, opening: str) -> bool:
    """True for a line that starts or ends with a fence of at least the opening one's length."""
    sign, length = opening[0], len(opening)
    starts = len(line) - len(line.lstrip(sign))
    ends = len(line) - len(line.rstrip(sign))
    return ends >= length or (starts >= length and not line[starts : starts + 1].isalnum())
