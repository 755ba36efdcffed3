"""Settings of the registry, read from its environment."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr

from shared.config.settings import Port, RequireTokens, ServiceSettings


class RegistrySettings(ServiceSettings):
    """Variables of the registry besides those of every service."""

    registry_port: Annotated[Port, Field(description="port of API, pages, health and metrics")] = (
        8080
    )
    database: Annotated[
        str,
        Field(description="SQLAlchemy URL: sqlite:///<file> or postgresql+psycopg://..."),
    ] = "sqlite:///.ratchet/registry.db"
    database_password_file: Annotated[
        Path | None,
        Field(
            description="file with the database password, which is then not part of the URL; read "
            "once, at the start"
        ),
    ] = None
    serving: Annotated[
        str, Field(description="URL of llamacpp targets without a location in the model file")
    ] = "http://127.0.0.1:8081"
    serving_tokens_file: Annotated[
        Path | None,
        Field(
            description="token file of the llamacpp targets; its first operate token is sent to "
            "them"
        ),
    ] = None
    ollama: Annotated[
        str, Field(description="URL of ollama targets without a location in the model file")
    ] = "http://127.0.0.1:11434"
    ollama_context: Annotated[
        int,
        Field(
            ge=64,
            description="maximum tokens of prompt and answer together at Ollama; applies to "
            "versions created from now on",
        ),
    ] = 4096
    ollama_threads: Annotated[
        int,
        Field(
            ge=0,
            description="threads at Ollama, for versions created from now on; 0 leaves the number "
            "to Ollama, which uses every core",
        ),
    ] = 0
    merged: Annotated[Path, Field(description="folder for merged models")] = Path(".ratchet/merged")
    merged_kept: Annotated[
        int,
        Field(ge=0, description="merged models kept per model, besides those that an alias names"),
    ] = 2
    slowdown: Annotated[
        float,
        Field(
            ge=1,
            description="largest accepted ratio of a version's time per token to that of the "
            "version served now",
        ),
    ] = 5.0
    read_tokens: Annotated[
        SecretStr, Field(description="tokens with the role read, separated by spaces")
    ] = SecretStr("")
    operate_tokens: Annotated[
        SecretStr,
        Field(
            description="tokens with the role operate, which may also move aliases, separated by "
            "spaces"
        ),
    ] = SecretStr("")
    require_tokens: RequireTokens = False
    upload_mib: Annotated[
        int, Field(ge=1, le=4096, description="largest file that may be uploaded, in MiB")
    ] = 64
    webhooks_file: Annotated[
        Path | None,
        Field(
            description="file with the receivers of webhooks, YAML or JSON; read once, at the start"
        ),
    ] = None
    tokens_file: Annotated[
        Path | None,
        Field(description="file with lines `<role> <token>`, reloaded when it changes"),
    ] = None
