"""Environment variables of a dataset import."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from shared.config.settings import ServiceSettings
from shared.failpoints import FailpointSetting
from shared.redaction.settings import NameRedactionSettings


class BuildSettings(ServiceSettings, NameRedactionSettings):
    """Settings of one import or build."""

    teacher_key_file: Annotated[
        Path | None, Field(description="file that contains the API key of the teacher")
    ] = None
    teacher_cache: Annotated[
        Path, Field(description="folder of the teacher's replies, for repeated builds")
    ] = Path(".ratchet/teacher")

    failpoints: FailpointSetting = ()
