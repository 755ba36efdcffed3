"""The trainer's own variables."""

from pathlib import Path
from typing import Annotated

from pydantic import ByteSize, Field

from shared.config.settings import Port, ServiceSettings
from shared.failpoints import FailpointSetting


class ChildSettings(ServiceSettings):
    """What the training process reads of them."""

    failpoints: FailpointSetting = ()


class TrainerSettings(ChildSettings):
    trainer_port: Annotated[Port, Field(description="health and metrics of the trainer")] = 8093
    work: Annotated[Path, Field(description="where unfinished runs are kept")] = Path(
        ".ratchet/trainer"
    )
    threads: Annotated[int, Field(ge=0, description="cores that training uses; 0 is all")] = 0
    memory_limit: Annotated[
        ByteSize | None,
        Field(description="most memory that a run may need, as 6GiB; without it, what there is"),
    ] = None
    trainer_group: Annotated[str, Field(description="consumer group of the trainer")] = (
        "ratchet-trainer"
    )
    session_seconds: Annotated[
        float, Field(ge=6, le=300, description="silence after which a worker counts as gone")
    ] = 15.0
    stop_seconds: Annotated[
        float,
        Field(
            gt=0,
            le=600,
            description="how long a stop waits for a run's checkpoint; less than the grace period",
        ),
    ] = 15.0
    trainer_stalled_seconds: Annotated[
        float,
        Field(
            ge=1, description="a run says nothing, not even of a step: no longer live after this"
        ),
    ] = 300.0
    ray_address: Annotated[
        str | None,
        Field(
            pattern=r"^(auto|(ray://)?[^\s/]+:\d+)$",
            description="a Ray cluster to train on: ray://HOST:PORT, or auto or HOST:PORT on one of its "
            "machines",
        ),
    ] = None
    ray_gpus: Annotated[
        float,
        Field(ge=0, description="GPUs of the Ray cluster that training takes; 0 for one without"),
    ] = 1.0
