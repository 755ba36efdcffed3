"""What the host reads from its environment."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from shared.config.settings import Port, ServiceSettings


class ServingSettings(ServiceSettings):
    """The host's own variables. It has no authentication: leave it on the loopback interface."""

    serving_port: Annotated[Port, Field(description="where the host listens")] = 8081
    serving_data: Annotated[
        Path, Field(description="the folder of the host's state and of its engines' logs")
    ] = Path(".ratchet/serving")
    serving_loaded: Annotated[
        int,
        Field(ge=1, description="versions kept in memory; those that an alias names always are"),
    ] = 3
    serving_context: Annotated[
        int, Field(ge=64, description="tokens of prompt and answer together, per request")
    ] = 2048
    serving_slots: Annotated[
        int,
        Field(
            ge=1,
            description="requests that one version answers at once; above 1, greedy answers may vary",
        ),
    ] = 1
    threads: Annotated[
        int, Field(ge=0, description="threads per version; 0 for all cores but one")
    ] = 0
