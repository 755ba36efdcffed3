"""The variables of the feedback service."""

from typing import Annotated

from pydantic import Field

from shared.settings import Port
from shared.streams import StreamSettings


class FeedbackSettings(StreamSettings):
    feedback_port: Annotated[Port, Field(description="health and metrics of the feedback service")] = 8091
    feedback_group: Annotated[str, Field(description="consumer group of the feedback service")] = "ratchet-feedback"
