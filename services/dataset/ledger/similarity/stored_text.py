"""Stored form of a text that later texts are compared with.

    text1:<text>       up to 500 characters
    zip1:<base64>      a longer text, compressed

Of a text of more than 4,000 characters, the first and the last 2,000 are kept, with the digest of
those between: what differs there makes two texts different. The scheme's name says what is stored.
Earlier versions stored a MinHash signature, without a name.
"""

import base64
import zlib
from collections.abc import Iterable

from shared.events import Message
from shared.identity import identity

MAX_CHARACTERS = 4000
_MAX_PLAIN = 500
_PLAIN, _PACKED = "text1:", "zip1:"


def prompt_text(messages: Iterable[Message]) -> str:
    """Return the text of a prompt without its system messages, which an application sends before
    every prompt. A prompt of system messages only keeps them.
    """
    messages = tuple(messages)
    messages = tuple(message for message in messages if message.role != "system") or messages
    if len(messages) == 1:
        return messages[0].content
    return "\n\n".join(f"{message.role}:\n{message.content}" for message in messages)


def shortened(text: str) -> str:
    """Return a text without its middle if it is long; the digest of the middle takes its place."""
    if len(text) <= MAX_CHARACTERS:
        return text
    half = MAX_CHARACTERS // 2
    # `=>` makes a line of code of it, which is compared as a whole.
    return f"{text[:half]}\n=> {identity(text[half:-half])}\n{text[-half:]}"


def pack(text: str) -> str:
    """Return the stored form of a text."""
    if len(text) <= _MAX_PLAIN:
        return _PLAIN + text
    return _PACKED + base64.b64encode(zlib.compress(text.encode(), 6)).decode()


def unpack(stored: str | None) -> str | None:
    """Return the text of a stored form; None if nothing or a signature of an earlier version is
    stored.
    """
    if stored is None:
        return None
    if stored.startswith(_PLAIN):
        return stored.removeprefix(_PLAIN)
    if stored.startswith(_PACKED):
        return zlib.decompress(base64.b64decode(stored.removeprefix(_PACKED))).decode()
    return None
