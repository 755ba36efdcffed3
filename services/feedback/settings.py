"""The variables of the feedback service."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from shared.config.settings import Port
from shared.kafka.streams import StreamSettings


class FeedbackSettings(StreamSettings):
    feedback_port: Annotated[
        Port, Field(description="the HTTP intake, health and metrics of the feedback service")
    ] = 8091
    feedback_group: Annotated[str, Field(description="consumer group of the feedback service")] = (
        "ratchet-feedback"
    )
    names_pipeline: Annotated[
        str,
        Field(
            description="the spaCy pipeline, a package or a folder, that finds people and places where a "
            "model file asks for it"
        ),
    ] = "en_core_web_sm"
    names_language: Annotated[
        str, Field(pattern="^[a-z]{2}$", description="the language of that pipeline")
    ] = "en"
    intake: Annotated[
        bool, Field(description="take feedback over HTTP as well, at POST /v1/feedback")
    ] = True
    intake_tokens_file: Annotated[
        Path | None,
        Field(
            description="a file of lines `send <token>`, read again when it changes; without it only "
            "this machine may send"
        ),
    ] = None
    intake_events: Annotated[int, Field(ge=1, description="events in one request")] = 500
    intake_body_bytes: Annotated[int, Field(ge=1024, description="bytes of one request")] = 4 << 20
    intake_in_flight_bytes: Annotated[
        int, Field(ge=1024, description="bytes that may be under way; more is answered 429")
    ] = 32 << 20
    intake_acknowledged_seconds: Annotated[
        float,
        Field(gt=0, description="how long Kafka may take to acknowledge; then the answer is 503"),
    ] = 10.0
