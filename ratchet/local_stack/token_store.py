"""The tokens of a local stack: a file in its state folder, readable by its owner only, which the
registry reads as well.
"""

import os
from pathlib import Path
from urllib.parse import urlsplit

from shared.auth.bearer_tokens import new_token
from shared.auth.token_file import first_token

TOKENS_FILE = "tokens"

_HEAD = (
    "# Registry tokens, one per line: `read` or `operate`, then the token. The registry reloads "
    "this file when it changes.\n"
)


def ensure_tokens_file(state: Path) -> Path:
    """Return the token file of a state folder; create it with one operator token if it is missing.

    Raises OSError.
    """
    path = state / TOKENS_FILE
    if not path.exists():
        # The file never exists with another mode or with partial content.
        unfinished = path.with_name(f"{TOKENS_FILE}.new")
        unfinished.unlink(missing_ok=True)
        with os.fdopen(
            os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
        ) as file:
            file.write(f"{_HEAD}operate {new_token()}\n")
        unfinished.replace(path)
    return path


def operator_token(state: Path) -> str | None:
    """Return the first operator token of a state folder, or None. Raises SettingsError for an
    invalid file.
    """
    return first_token(state / TOKENS_FILE, "operate")


def token_for(registry: str, state: Path, explicit_token: str | None) -> str | None:
    """Return the token for a registry: the explicit one, or the state folder's, which is sent to
    registries on this machine only.
    """
    if explicit_token:
        return explicit_token
    is_local = urlsplit(registry).hostname in ("127.0.0.1", "::1", "localhost")
    return operator_token(state) if is_local else None
