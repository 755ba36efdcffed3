"""Settings: environment variables with the prefix RATCHET_, read once at start, frozen.

A service derives its own class from `ServiceSettings`; `read_settings` turns an invalid value into
an error that names the variable.
"""

from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.errors import SettingsError
from shared.observability.tracing import TracesEndpoint

PREFIX = "RATCHET_"

Port = Annotated[int, Field(ge=1, le=65535)]


class KafkaSettings(BaseSettings):
    """TLS and SASL settings of Kafka clients, read by services and commands alike."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    kafka_ca: Annotated[
        Path | None,
        Field(description="PEM file with the CA certificates of the brokers; turns TLS on"),
    ] = None
    kafka_certificate: Annotated[
        Path | None,
        Field(description="PEM file with the client certificate"),
    ] = None
    kafka_key: Annotated[
        Path | None,
        Field(description="PEM file with the unencrypted key of the client certificate"),
    ] = None
    kafka_username: Annotated[
        str | None,
        Field(min_length=1, description="SCRAM-SHA-512 user name"),
    ] = None
    kafka_password_file: Annotated[
        Path | None, Field(description="file that contains the password of that user")
    ] = None


RequireTokens = Annotated[
    bool,
    Field(
        description="require a token of every request, also of those from this machine: behind a "
        "proxy, all callers may look local"
    ),
]


class ServiceSettings(KafkaSettings):
    """Settings that every service reads."""

    bootstrap_servers: Annotated[
        str, Field(description="Kafka brokers, host:port, separated by commas")
    ] = "127.0.0.1:9092"
    object_store: Annotated[
        str, Field(description="storage of snapshots and adapters: a folder or an fsspec URL")
    ] = ".ratchet/objects"
    models: Annotated[Path, Field(description="folder of the model files")] = Path("models")
    bases: Annotated[
        Path, Field(description="folder that relative paths of base models start from")
    ] = Path(".ratchet/bases")
    http_host: Annotated[
        str, Field(description="address that the health and metrics server listens on")
    ] = "127.0.0.1"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Field(description="lowest severity that is logged"),
    ] = "info"
    log_format: Annotated[
        Literal["text", "json"], Field(description="log format: text for people, json for machines")
    ] = "text"
    traces: TracesEndpoint = None


S = TypeVar("S", bound=BaseSettings)


def read_settings(settings_type: type[S]) -> S:
    """Read the settings of this process.

    Raises SettingsError with the variable's name and the expected value.
    """
    try:
        return settings_type()
    except ValidationError as error:
        problems = (
            f"{PREFIX}{'_'.join(str(part) for part in problem['loc']).upper()}: "
            f"{problem['msg']}, found {problem['input']!r}"
            for problem in error.errors(include_url=False)
        )
        raise SettingsError("; ".join(problems)) from error
