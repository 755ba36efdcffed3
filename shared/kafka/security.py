"""How a Kafka client knows that it talks to the right brokers (TLS), and says who it is
(SCRAM-SHA-512, or a certificate of its own).
"""

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
    """What all clients of one process share; by itself, an open line to brokers that ask for no
    name.
    """

    context: ssl.SSLContext | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def options(self) -> dict[str, Any]:
        """What a client of aiokafka takes."""
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
    """What the settings say. Raises SettingsError, which names the variable and never shows a
    password or a key.
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
    """Why the first of some brokers does not take us, as one more connection finds out; empty when
    it does.

    A client tries them all and says only that it found none.
    """
    host, _, port = bootstrap_servers.split(",")[0].strip().rpartition(":")
    try:
        connection = await create_conn(
            host.strip("[]"), int(port), request_timeout_ms=CONNECT_TIMEOUT_MS, **security.options
        )
        try:
            # A broker that wants a user takes the connection, and hangs up on the first question.
            await connection.send(MetadataRequest([]))
        finally:
            connection.close()
    except (KafkaError, OSError, TimeoutError, ValueError) as error:
        return f"{str(error) or type(error).__name__}{_advice(error, security)}"
    return ""


def _advice(error: Exception, security: Security) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"; is {_variable('kafka_ca')} the authority that signed the broker's certificate, "
            "and the broker called so in it?"
        )
    if security.context is not None and isinstance(error, ssl.SSLError | ConnectionResetError):
        return "; does the broker speak TLS there?"
    if security.username is not None and isinstance(error, KafkaError):
        return (
            f"; are {_variable('kafka_username')} and what {_variable('kafka_password_file')} "
            "holds those of a SCRAM user?"
        )
    if security.context is None and isinstance(error, KafkaError):
        return f"; does it want TLS? {_variable('kafka_ca')} turns it on"
    if isinstance(error, KafkaError):
        # A handshake of TLS 1.3 is over for us before the broker has looked at our certificate.
        return (
            f"; does the broker take {_variable('kafka_certificate')}, or want a user "
            f"({_variable('kafka_username')})?"
        )
    return ""


def _require(settings: KafkaSettings, given: str, needed: str) -> None:
    if getattr(settings, given) is not None and getattr(settings, needed) is None:
        raise SettingsError(
            f"{_variable(needed)}: expected, since {_variable(given)} is set; set both or neither"
        )


def _trusting(authorities: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(authorities))
    except OSError as error:
        raise _unreadable(
            "kafka_ca",
            "a PEM file of the authorities that sign the brokers' certificates",
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
        # Without a word of ours OpenSSL would ask for the password of an encrypted key on the
        # terminal.
        context.load_cert_chain(certificate, key, password="")
    except OSError as error:
        raise _unreadable(
            "kafka_key",
            f"the key, in PEM and not encrypted, of the certificate in {certificate}",
            key,
            error,
        ) from error


def _password(path: Path) -> str:
    try:
        password = path.read_text(encoding="utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        # The error of a decoder shows the bytes it could not read.
        reason = error if isinstance(error, OSError) else "not UTF-8"
        raise _unreadable(
            "kafka_password_file", "a file that holds a password", path, reason
        ) from None
    if not password:
        raise _unreadable(
            "kafka_password_file", "a file that holds a password", path, "it is empty"
        )
    return password


def _unreadable(name: str, expected: str, path: Path, why: object) -> SettingsError:
    return SettingsError(f"{_variable(name)}: expected {expected}, found {path}: {why}")


def kafka_variables() -> frozenset[str]:
    """The environment variables that this is read from."""
    return frozenset(map(_variable, KafkaSettings.model_fields))


def _variable(name: str) -> str:
    return PREFIX + name.upper()
