"""Settings: environment variables with the prefix RATCHET_, read once at start, frozen.

A service derives its own from `ServiceSettings`; `read` turns a wrong value into an error that
names the variable.
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
    """How to reach brokers that want TLS; what services and commands read alike."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    kafka_ca: Annotated[
        Path | None,
        Field(description="a PEM file: who signs the certificates of the brokers; turns TLS on"),
    ] = None
    kafka_certificate: Annotated[
        Path | None,
        Field(description="a PEM file: the certificate that Kafka knows this client by"),
    ] = None
    kafka_key: Annotated[
        Path | None, Field(description="a PEM file: the key of that certificate, not encrypted")
    ] = None
    kafka_username: Annotated[
        str | None,
        Field(min_length=1, description="the SCRAM-SHA-512 user that Kafka knows this client by"),
    ] = None
    kafka_password_file: Annotated[
        Path | None, Field(description="a file that holds that user's password")
    ] = None


class ServiceSettings(KafkaSettings):
    """What every service reads."""

    bootstrap_servers: Annotated[
        str, Field(description="Kafka brokers, host:port with commas between them")
    ] = "127.0.0.1:9092"
    object_store: Annotated[
        str, Field(description="where snapshots and adapters lie: a folder or an fsspec URL")
    ] = ".ratchet/objects"
    models: Annotated[Path, Field(description="the folder of model files")] = Path("models")
    bases: Annotated[
        Path, Field(description="the folder that relative paths of base models start from")
    ] = Path(".ratchet/bases")
    http_host: Annotated[
        str, Field(description="the address that health and metrics listen on")
    ] = "127.0.0.1"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Field(description="the least severe line to log"),
    ] = "info"
    log_format: Annotated[
        Literal["text", "json"], Field(description="lines for people or for machines")
    ] = "text"
    traces: TracesEndpoint = None


S = TypeVar("S", bound=BaseSettings)


def read_settings(settings_type: type[S]) -> S:
    """The settings of this process. Raises SettingsError with the variable's name and what was
    expected.
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
