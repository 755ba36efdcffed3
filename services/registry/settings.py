"""What the registry reads from its environment."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr

from shared.config.settings import Port, ServiceSettings


class RegistrySettings(ServiceSettings):
    """The registry's own variables."""

    registry_port: Annotated[
        Port, Field(description="where API, pages, health and metrics listen")
    ] = 8080
    database: Annotated[
        str, Field(description="an SQLAlchemy URL: sqlite:///<file> or postgresql+psycopg://...")
    ] = "sqlite:///.ratchet/registry.db"
    database_password_file: Annotated[
        Path | None,
        Field(
            description="a file with the database's password, which then is not in the URL; read once, "
            "at the start"
        ),
    ] = None
    serving: Annotated[
        str,
        Field(description="where llamacpp targets are served that name no location of their own"),
    ] = "http://127.0.0.1:8081"
    ollama: Annotated[
        str, Field(description="where ollama targets are served that name no location of their own")
    ] = "http://127.0.0.1:11434"
    ollama_context: Annotated[
        int,
        Field(
            ge=64,
            description="tokens of prompt and answer together that versions made from now on take at "
            "Ollama",
        ),
    ] = 4096
    ollama_threads: Annotated[
        int,
        Field(
            ge=0,
            description="threads that versions made from now on use at Ollama; 0 leaves it to Ollama, "
            "which takes every core",
        ),
    ] = 0
    merged: Annotated[Path, Field(description="the folder that merged models are written to")] = (
        Path(".ratchet/merged")
    )
    merged_kept: Annotated[
        int,
        Field(ge=0, description="merged models kept per model, beside those that an alias names"),
    ] = 2
    slowdown: Annotated[
        float,
        Field(
            ge=1,
            description="how many times as long per token as what answers now a version may take and "
            "still be switched to",
        ),
    ] = 5.0
    read_tokens: Annotated[
        SecretStr, Field(description="tokens that may read, with spaces between them")
    ] = SecretStr("")
    operate_tokens: Annotated[
        SecretStr,
        Field(description="tokens that may move aliases as well, with spaces between them"),
    ] = SecretStr("")
    tokens_file: Annotated[
        Path | None,
        Field(description="a file of lines `<role> <token>`, read again when it changes"),
    ] = None
