"""Environment variables of the dataset service."""

from typing import Annotated

from pydantic import Field

from shared.config.settings import Port
from shared.kafka.streams import StreamSettings


class DatasetSettings(StreamSettings):
    """Settings of one dataset worker."""

    dataset_port: Annotated[
        Port, Field(description="health and metrics of the dataset service")
    ] = 8092
    dataset_group: Annotated[str, Field(description="consumer group of the dataset service")] = (
        "ratchet-dataset"
    )
    dataset_retries: Annotated[
        int,
        Field(
            ge=1, description="attempts, a second apart, to write a batch before the process exits"
        ),
    ] = 30
