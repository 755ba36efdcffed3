"""Settings of the serving host."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from shared.config.settings import Port, RequireTokens, ServiceSettings


class ServingSettings(ServiceSettings):
    """Environment variables of the host. Chat completions need no token: keep the host on loopback
    or in a network of the applications.
    """

    serving_port: Annotated[Port, Field(description="port of the host")] = 8081
    serving_data: Annotated[
        Path, Field(description="folder of the host's state and its engines' logs")
    ] = Path(".ratchet/serving")
    merged: Annotated[
        Path,
        Field(description="folder of merged models; no file outside it is served"),
    ] = Path(".ratchet/merged")
    serving_tokens_file: Annotated[
        Path | None,
        Field(
            description="file with lines `operate <token>` for the paths `/admin/...`, reloaded "
            "when it changes; without it, only this machine may use them"
        ),
    ] = None
    require_tokens: RequireTokens = False
    serving_loaded: Annotated[
        int,
        Field(
            ge=1,
            description="maximum of loaded versions; versions with an alias always stay loaded",
        ),
    ] = 3
    serving_context: Annotated[
        int, Field(ge=64, description="context length per request: prompt and answer, in tokens")
    ] = 2048
    serving_slots: Annotated[
        int,
        Field(
            ge=1,
            description="parallel requests per version; above 1, greedy answers may vary",
        ),
    ] = 1
    threads: Annotated[
        int, Field(ge=0, description="threads per version; 0 for all cores but one")
    ] = 0
