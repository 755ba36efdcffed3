"""Token file that is reloaded when it changes."""

from collections.abc import Callable, Sequence
from pathlib import Path

from shared.auth.bearer_tokens import Role, Tokens, parse_token_lines, parse_tokens
from shared.errors import SettingsError
from shared.logs import Log

_Stamp = tuple[int, int, int]


def open_token_file(
    path: Path | None, variable: str, allowed: Sequence[Role], required: bool, log: Log
) -> Callable[[], Tokens] | None:
    """Return the source of the tokens in a file that the setting `variable` names; None without a
    file. If tokens are `required`, the source without a file has none: every request is refused.
    Raises SettingsError for an invalid file.
    """
    if path is not None:
        return TokenFile(path, variable, allowed, log)
    if not required:
        return None
    log.warning("every request is refused: RATCHET_REQUIRE_TOKENS is on", advice=f"set {variable}")
    return Tokens


def first_token(path: Path, role: Role) -> str | None:
    """Return the first token of a role in a file; None if it has none, or cannot be read. Raises
    SettingsError for an invalid file.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    lines = parse_token_lines(text, str(path), ("read", "operate", "send"))
    return next((line.token for line in lines if line.grant.role == role), None)


class TokenFile:
    """The tokens of a mounted file, reloaded when the file changes.

    `variable` is the setting that names the file. Raises SettingsError when the file is invalid at
    start; an invalid file later is logged, and the previous tokens stay valid.
    """

    def __init__(self, path: Path, variable: str, allowed: Sequence[Role], log: Log) -> None:
        self._path = path
        self._where = f"{variable}: {path}"
        self._allowed = allowed
        self._log = log
        self._stamp, self._tokens = self._read()

    def __call__(self) -> Tokens:
        if (stamp := self._look()) != self._stamp:
            self._stamp = stamp
            try:
                self._stamp, self._tokens = self._read()
                self._log.info(
                    "token file reloaded", file=str(self._path), tokens=len(self._tokens.grants)
                )
            except SettingsError as error:
                self._log.warning("token file invalid, keeping previous tokens", reason=str(error))
        return self._tokens

    def _read(self) -> tuple[_Stamp | None, Tokens]:
        # Taken before reading, so that a change during the read causes another one.
        stamp = self._look()
        try:
            return stamp, parse_tokens(
                self._path.read_text(encoding="utf-8"), self._where, self._allowed
            )
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"{self._where}: expected a file of lines `<role> <token>`: {type(error).__name__}"
            ) from error

    def _look(self) -> _Stamp | None:
        """Return a value that changes with the file: rewritten, or replaced through its symbolic
        link, as mounted secrets are.
        """
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_ino, stat.st_mtime_ns, stat.st_size
