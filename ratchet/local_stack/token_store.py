"""The tokens of a stack on this machine: a file in its state folder that only its owner may read,
which the registry reads as well.
"""

import os
from pathlib import Path
from urllib.parse import urlsplit

from shared.auth.bearer_tokens import new_token, parse_token_lines

TOKENS_FILE = "tokens"

_HEAD = (
    "# who may ask the registry: `read` or `operate`, and a token, on each line; it is read "
    "again when it changes\n"
)


def ensure_tokens_file(state: Path) -> Path:
    """The file of tokens of a state folder, made with one that may operate where there is none.
    Raises OSError.
    """
    path = state / TOKENS_FILE
    if not path.exists():
        # Never there with another mode, and never there in part.
        unfinished = path.with_name(f"{TOKENS_FILE}.new")
        unfinished.unlink(missing_ok=True)
        with os.fdopen(
            os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
        ) as file:
            file.write(f"{_HEAD}operate {new_token()}\n")
        unfinished.replace(path)
    return path


def operator_token(state: Path) -> str | None:
    """The first token of a state folder that may operate; None where there is none. Raises
    SettingsError for a file that is wrong.
    """
    path = state / TOKENS_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return None
    return next(
        (token for role, token in parse_token_lines(text, str(path)) if role == "operate"), None
    )


def token_for(registry: str, state: Path, explicit_token: str | None) -> str | None:
    """What to show a registry: the token that was given, or the state folder's; that one is shown
    to nobody but this machine.
    """
    if explicit_token:
        return explicit_token
    here = urlsplit(registry).hostname in ("127.0.0.1", "::1", "localhost")
    return operator_token(state) if here else None
