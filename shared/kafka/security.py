"""TLS and authentication of Kafka clients: SCRAM-SHA-512, or a client certificate."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiokafka.conn import create_conn
from aiokafka.errors import KafkaError
from aiokafka.protocol.metadata import MetadataRequest

from shared.config.settings import PREFIX, KafkaSettings
from shared.errors import SettingsError

SASL_MECHANISM = "SCRAM-SHA-512"
CONNECT_TIMEOUT_MS = 5000


@dataclass(frozen=True, slots=True)
class Security:
    """Connection security shared by all clients of a process; by default plaintext without
    authentication.
    """

    context: ssl.SSLContext | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments for an aiokafka client."""
        if self.context is None:
            return {}
        if self.username is None:
            return {"security_protocol": "SSL", "ssl_context": self.context}
        return {
            "security_protocol": "SASL_SSL",
            "ssl_context": self.context,
            "sasl_mechanism": SASL_MECHANISM,
            "sasl_plain_username": self.username,
            "sasl_plain_password": self.password,
        }


PLAINTEXT = Security()


def kafka_security(settings: KafkaSettings) -> Security:
    """Build the security options from the settings.

    Raises SettingsError, which names the variable and never contains a password or a key.
    """
    _require(settings, "kafka_certificate", "kafka_key")
    _require(settings, "kafka_key", "kafka_certificate")
    _require(settings, "kafka_username", "kafka_password_file")
    _require(settings, "kafka_password_file", "kafka_username")
    _require(settings, "kafka_certificate", "kafka_ca")
    _require(settings, "kafka_username", "kafka_ca")
    if settings.kafka_ca is None:
        return PLAINTEXT
    context = _trusting(settings.kafka_ca)
    if settings.kafka_certificate and settings.kafka_key:
        _identify(context, settings.kafka_certificate, settings.kafka_key)
    password = _password(settings.kafka_password_file) if settings.kafka_password_file else None
    return Security(context, settings.kafka_username, password)


async def connection_error(bootstrap_servers: str, security: Security) -> str:
    """Open one more connection to the first broker; return why it fails, or an empty string if it
    does not.

    A client tries all brokers and reports only that it could not connect to any.
    """
    host, _, port = bootstrap_servers.split(",")[0].strip().rpartition(":")
    try:
        connection = await create_conn(
            host.strip("[]"), int(port), request_timeout_ms=CONNECT_TIMEOUT_MS, **security.options
        )
        try:
            # A broker that requires SASL accepts the connection and closes it at the first request.
            await connection.send(MetadataRequest([]))
        finally:
            connection.close()
    except (KafkaError, OSError, TimeoutError, ValueError) as error:
        return f"{str(error) or type(error).__name__}{_advice(error, security)}"
    return ""


def _advice(error: Exception, security: Security) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"; check that {_variable('kafka_ca')} contains the CA of the broker's certificate, "
            "and that the certificate has the broker's name"
        )
    if security.context is not None and isinstance(error, ssl.SSLError | ConnectionResetError):
        return "; check that the broker uses TLS on this port"
    if security.username is not None and isinstance(error, KafkaError):
        return (
            f"; check that {_variable('kafka_username')} and the password in "
            f"{_variable('kafka_password_file')} belong to a SCRAM user"
        )
    if security.context is None and isinstance(error, KafkaError):
        return f"; if the broker requires TLS, set {_variable('kafka_ca')}"
    if isinstance(error, KafkaError):
        # In TLS 1.3 the client's handshake ends before the broker verifies the client certificate.
        return (
            f"; check that the broker accepts {_variable('kafka_certificate')}, or set a user "
            f"({_variable('kafka_username')})"
        )
    return ""


def _require(settings: KafkaSettings, given: str, needed: str) -> None:
    if getattr(settings, given) is not None and getattr(settings, needed) is None:
        raise SettingsError(
            f"{_variable(needed)}: required because {_variable(given)} is set; set both or neither"
        )


def _trusting(authorities: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(authorities))
    except OSError as error:
        raise _unreadable(
            "kafka_ca",
            "a PEM file with the CA certificates of the brokers",
            authorities,
            error,
        ) from error


def _identify(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    for name, path in (("kafka_certificate", certificate), ("kafka_key", key)):
        try:
            path.read_bytes()
        except OSError as error:
            raise _unreadable(name, "a PEM file", path, error) from error
    try:
        # Without a password argument, OpenSSL prompts for that of an encrypted key.
        context.load_cert_chain(certificate, key, password="")
    except OSError as error:
        raise _unreadable(
            "kafka_key",
            f"a PEM file with the unencrypted key of the certificate in {certificate}",
            key,
            error,
        ) from error


def _password(path: Path) -> str:
    try:
        password = path.read_text(encoding="utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        # The message of a decoding error contains the bytes.
        reason = error if isinstance(error, OSError) else "not UTF-8"
        raise _unreadable(
            "kafka_password_file", "a file that contains a password", path, reason
        ) from None
    if not password:
        raise _unreadable(
            "kafka_password_file", "a file that contains a password", path, "it is empty"
        )
    return password


def _unreadable(name: str, expected: str, path: Path, why: object) -> SettingsError:
    return SettingsError(f"{_variable(name)}: expected {expected}, found {path}: {why}")


def kafka_variables() -> frozenset[str]:
    """Return the environment variables of these settings."""
    return frozenset(map(_variable, KafkaSettings.model_fields))


def _variable(name: str) -> str:
    return PREFIX + name.upper()
