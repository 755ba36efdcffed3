"""The trainer's own variables."""

from pathlib import Path
from typing import Annotated

from pydantic import ByteSize, Field

from shared.settings import Port, ServiceSettings


class TrainerSettings(ServiceSettings):
    trainer_port: Annotated[Port, Field(description="health and metrics of the trainer")] = 8093
    work: Annotated[Path, Field(description="where unfinished runs are kept")] = Path(".ratchet/trainer")
    threads: Annotated[int, Field(ge=0, description="cores that training uses; 0 is all")] = 0
    memory_limit: Annotated[ByteSize | None, Field(description="most memory that a run may need, as 6GiB; without it, what there is")] = (
        None
    )
    trainer_group: Annotated[str, Field(description="consumer group of the trainer")] = "ratchet-trainer"
