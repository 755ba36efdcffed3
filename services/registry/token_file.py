"""The tokens that hold at present: those of the settings, and those of a mounted file, which is read again when it changes."""

from pathlib import Path

from services.registry.settings import RegistrySettings
from shared.errors import SettingsError
from shared.logs import Log
from shared.tokens import Tokens, parse, tokens

_Stamp = tuple[int, int, int]


class CurrentTokens:
    """Tokens, always those of now. Raises SettingsError for a setting or a file that is wrong at the start; later a wrong file is said in
    the log, and what held before it goes on to hold."""

    def __init__(self, settings: RegistrySettings, log: Log) -> None:
        self._given = tokens("read", settings.read_tokens.get_secret_value().split(), "RATCHET_READ_TOKENS")
        self._given |= tokens("operate", settings.operate_tokens.get_secret_value().split(), "RATCHET_OPERATE_TOKENS")
        self._path = settings.tokens_file
        self._log = log
        self._stamp: _Stamp | None = None
        self._filed = Tokens()
        if self._path is not None:
            self._stamp, self._filed = _read(self._path)

    def __call__(self) -> Tokens:
        if self._path is not None and (stamp := _stamp(self._path)) != self._stamp:
            self._stamp = stamp
            try:
                self._stamp, self._filed = _read(self._path)
                self._log.info("tokens were read again", file=str(self._path), tokens=len(self._filed.roles))
            except SettingsError as error:
                self._log.warning("the tokens from before hold", reason=str(error))
        return self._given | self._filed


def _read(path: Path) -> tuple[_Stamp | None, Tokens]:
    where = f"RATCHET_TOKENS_FILE: {path}"
    # Before the file is read: what changes meanwhile is read once more.
    stamp = _stamp(path)
    try:
        return stamp, parse(path.read_text(encoding="utf-8"), where)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{where}: expected a file of lines `<role> <token>`: {type(error).__name__}") from error


def _stamp(path: Path) -> _Stamp | None:
    """Another one for another content: a file that was written, or a link that leads elsewhere, as mounted secrets are renewed."""
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_ino, seen.st_mtime_ns, seen.st_size
