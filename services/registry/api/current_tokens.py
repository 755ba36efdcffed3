"""Currently valid tokens: those of the settings, and those of a mounted file, which is read again
when it changes.
"""

from services.registry.settings import RegistrySettings
from shared.auth.bearer_tokens import Tokens, tokens_for_role
from shared.auth.token_file import TokenFile
from shared.logs import Log


class CurrentTokens:
    """Source of the currently valid tokens.

    Raises SettingsError for an invalid setting or file at the start. Later, an invalid file is
    logged and the previous tokens stay valid.
    """

    def __init__(self, settings: RegistrySettings, log: Log) -> None:
        self._from_settings = tokens_for_role(
            "read", settings.read_tokens.get_secret_value().split(), "RATCHET_READ_TOKENS"
        )
        self._from_settings |= tokens_for_role(
            "operate", settings.operate_tokens.get_secret_value().split(), "RATCHET_OPERATE_TOKENS"
        )
        path = settings.tokens_file
        self._from_file = (
            TokenFile(path, "RATCHET_TOKENS_FILE", ("read", "operate"), log) if path else Tokens
        )

    def __call__(self) -> Tokens:
        return self._from_settings | self._from_file()
