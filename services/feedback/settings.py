"""The variables of the feedback service."""

from typing import Annotated

from pydantic import Field

from shared.settings import Port
from shared.streams import StreamSettings


class FeedbackSettings(StreamSettings):
    feedback_port: Annotated[Port, Field(description="health and metrics of the feedback service")] = 8091
    feedback_group: Annotated[str, Field(description="consumer group of the feedback service")] = "ratchet-feedback"
    names_pipeline: Annotated[
        str, Field(description="the spaCy pipeline, a package or a folder, that finds people and places where a model file asks for it")
    ] = "en_core_web_sm"
    names_language: Annotated[str, Field(pattern="^[a-z]{2}$", description="the language of that pipeline")] = "en"
