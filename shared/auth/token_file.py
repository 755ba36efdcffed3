"""The tokens of a mounted file, always those of now."""

from collections.abc import Sequence
from pathlib import Path

from shared.auth.bearer_tokens import Role, Tokens, parse_tokens
from shared.errors import SettingsError
from shared.logs import Log

_Stamp = tuple[int, int, int]


class TokenFile:
    """Read again when it changes; `variable` is the setting that names it. Raises SettingsError for
    a file that is wrong at the start; later a wrong file is said in the log, and what held before
    it goes on to hold.
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
                    "tokens were read again", file=str(self._path), tokens=len(self._tokens.roles)
                )
            except SettingsError as error:
                self._log.warning("the tokens from before hold", reason=str(error))
        return self._tokens

    def _read(self) -> tuple[_Stamp | None, Tokens]:
        # Before the file is read: what changes meanwhile is read once more.
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
        """Another one for another content: a file that was written, or a link that leads elsewhere,
        as mounted secrets are renewed.
        """
        try:
            seen = self._path.stat()
        except OSError:
            return None
        return seen.st_ino, seen.st_mtime_ns, seen.st_size
