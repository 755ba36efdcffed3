"""Settings of name redaction, read by each process that redacts."""

from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.config.settings import PREFIX


class NameRedactionSettings(BaseSettings):
    """The pipeline that finds people and places."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    names_pipeline: Annotated[
        str,
        Field(
            description="spaCy pipeline (package or folder) that finds people and places for model "
            "files with `names: true`"
        ),
    ] = "en_core_web_sm"
    names_language: Annotated[
        str, Field(pattern="^[a-z]{2}$", description="language of that pipeline")
    ] = "en"
