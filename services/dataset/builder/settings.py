"""Environment variables of the builder."""

from typing import Annotated

from pydantic import Field

from shared.config.settings import Port, ServiceSettings
from shared.failpoints import FailpointSetting
from shared.redaction.settings import NameRedactionSettings


class BuilderSettings(ServiceSettings, NameRedactionSettings):
    """Settings of the builder and of its worker process."""

    builder_port: Annotated[Port, Field(description="health and metrics of the builder")] = 8094
    builder_group: Annotated[str, Field(description="consumer group of the builder")] = (
        "ratchet-builder"
    )
    session_seconds: Annotated[
        float,
        Field(
            ge=6,
            le=300,
            description="session timeout: a worker without a heartbeat for so long is lost",
        ),
    ] = 15.0
    build_minutes: Annotated[
        float, Field(gt=0, le=1440, description="time limit of one training request")
    ] = 60.0
    build_memory_mib: Annotated[
        int, Field(ge=512, description="limit on the memory of one training request, in MiB")
    ] = 4096
    failpoints: FailpointSetting = ()
