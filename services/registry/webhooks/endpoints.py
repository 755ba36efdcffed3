"""The file of webhooks that `RATCHET_WEBHOOKS_FILE` names: which receivers get which events."""

import base64
import binascii
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError

from services.registry.webhooks.messages import EventType
from shared.errors import SettingsError

VARIABLE = "RATCHET_WEBHOOKS_FILE"
SECRET_PREFIX = "whsec_"
MIN_SECRET_BYTES, MAX_SECRET_BYTES = 24, 64


def _check_url(url: SecretStr) -> SecretStr:
    parts = urlsplit(url.get_secret_value())
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise ValueError("expected an http or https URL without user and password")
    return url


def _check_secret(secret: SecretStr) -> SecretStr:
    if not MIN_SECRET_BYTES <= len(secret_bytes(secret)) <= MAX_SECRET_BYTES:
        raise ValueError(
            f"expected {SECRET_PREFIX} and the base64 form of {MIN_SECRET_BYTES} to "
            f"{MAX_SECRET_BYTES} bytes: `echo {SECRET_PREFIX}$(openssl rand -base64 32)`"
        )
    return secret


def secret_bytes(secret: SecretStr) -> bytes:
    """Return the key of a secret; empty if it is not in the form of Standard Webhooks."""
    text = secret.get_secret_value()
    try:
        return base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return b""


Secret = Annotated[SecretStr, AfterValidator(_check_secret)]


class WebhookEndpoint(BaseModel):
    """A receiver. URLs are secrets as well: those of many chat systems have a token in them."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    url: Annotated[SecretStr, AfterValidator(_check_url)]
    secret: Secret
    previous_secret: Secret | None = None
    events: frozenset[EventType] | None = None
    models: frozenset[str] | None = None

    @property
    def keys(self) -> list[bytes]:
        """The keys that sign a message: during a rotation two of them."""
        secrets = [self.secret, *([self.previous_secret] if self.previous_secret else [])]
        return [secret_bytes(secret) for secret in secrets]

    def wants(self, event: EventType, model: str) -> bool:
        """Return whether this receiver gets an event of a model."""
        return (self.events is None or event in self.events) and (
            self.models is None or model in self.models
        )


class _WebhooksFile(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    webhooks: list[WebhookEndpoint]


def read_endpoints(path: Path | None, models: Collection[str]) -> list[WebhookEndpoint]:
    """Read the file of webhooks; none without a file. Raises SettingsError, which quotes neither a
    secret nor a URL.
    """
    if path is None:
        return []
    where = f"{VARIABLE}: {path}"
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{where}: expected a readable file: {error}") from error
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark is not None else ""
        raise SettingsError(f"{where}{place}: expected YAML or JSON") from None
    try:
        endpoints = _WebhooksFile.model_validate(content).webhooks
    except ValidationError as error:
        problems = (
            f"{'.'.join(map(str, problem['loc'])) or 'the file'}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)
        )
        raise SettingsError(f"{where}: {'; '.join(problems)}; docs/webhooks.md") from None
    names = [endpoint.name for endpoint in endpoints]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise SettingsError(f"{where}: name {', '.join(sorted(repeated))} is used more than once")
    for endpoint in endpoints:
        unknown = (endpoint.models or frozenset()).difference(models)
        if unknown:
            raise SettingsError(
                f"{where}: {endpoint.name} names undeclared models: {', '.join(sorted(unknown))}"
            )
    return endpoints
