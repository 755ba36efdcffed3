"""Settings of the trainer and of its training process."""

from pathlib import Path
from typing import Annotated

from pydantic import ByteSize, Field

from shared.config.settings import Port, ServiceSettings
from shared.failpoints import FailpointSetting


class TrainingProcessSettings(ServiceSettings):
    """Settings that the training process reads."""

    failpoints: FailpointSetting = ()


class TrainerSettings(TrainingProcessSettings):
    trainer_port: Annotated[Port, Field(description="port of the trainer's health and metrics")] = (
        8093
    )
    work: Annotated[Path, Field(description="folder of unfinished runs")] = Path(".ratchet/trainer")
    threads: Annotated[int, Field(ge=0, description="CPU cores for training; 0 uses all")] = 0
    memory_limit: Annotated[
        ByteSize | None,
        Field(description="maximum memory of a run, for example 6GiB; unset: all available memory"),
    ] = None
    trainer_group: Annotated[str, Field(description="consumer group of the trainer")] = (
        "ratchet-trainer"
    )
    session_seconds: Annotated[
        float, Field(ge=6, le=300, description="silence after which a worker counts as dead")
    ] = 15.0
    stop_seconds: Annotated[
        float,
        Field(
            gt=0,
            le=600,
            description="maximum wait for a run's checkpoint on shutdown; must be less than the "
            "grace period",
        ),
    ] = 15.0
    trainer_stalled_seconds: Annotated[
        float,
        Field(ge=1, description="time without any progress of a run after which it is not live"),
    ] = 300.0
    ray_address: Annotated[
        str | None,
        Field(
            pattern=r"^(auto|(ray://)?[^\s/]+:\d+)$",
            description="Ray cluster to train on: ray://HOST:PORT, or auto or HOST:PORT on one of "
            "its machines",
        ),
    ] = None
    ray_gpus: Annotated[
        float,
        Field(ge=0, description="GPUs of the Ray cluster that training uses; 0 for a CPU cluster"),
    ] = 1.0
