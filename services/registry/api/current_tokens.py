"""The tokens that hold at present: those of the settings, and those of a mounted file, which is
read again when it changes.
"""

from services.registry.settings import RegistrySettings
from shared.auth.bearer_tokens import Tokens, tokens_for_role
from shared.auth.token_file import TokenFile
from shared.logs import Log


class CurrentTokens:
    """Tokens, always those of now. Raises SettingsError for a setting or a file that is wrong at
    the start; later a wrong file is said in the log, and what held before it goes on to hold.
    """

    def __init__(self, settings: RegistrySettings, log: Log) -> None:
        self._given = tokens_for_role(
            "read", settings.read_tokens.get_secret_value().split(), "RATCHET_READ_TOKENS"
        )
        self._given |= tokens_for_role(
            "operate", settings.operate_tokens.get_secret_value().split(), "RATCHET_OPERATE_TOKENS"
        )
        path = settings.tokens_file
        self._filed = (
            TokenFile(path, "RATCHET_TOKENS_FILE", ("read", "operate"), log) if path else Tokens
        )

    def __call__(self) -> Tokens:
        return self._given | self._filed()
