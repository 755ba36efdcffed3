"""Settings of the feedback service, read from the environment."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from shared.config.settings import Port, RequireTokens
from shared.kafka.streams import StreamSettings
from shared.redaction.settings import NameRedactionSettings


class FeedbackSettings(StreamSettings, NameRedactionSettings):
    """Stream settings, name redaction and the HTTP intake."""

    feedback_port: Annotated[
        Port, Field(description="port of the feedback service's HTTP intake, probes and metrics")
    ] = 8091
    feedback_group: Annotated[str, Field(description="consumer group of the feedback service")] = (
        "ratchet-feedback"
    )
    intake: Annotated[
        bool, Field(description="accept feedback over HTTP, at POST /v1/feedback")
    ] = True
    intake_tokens_file: Annotated[
        Path | None,
        Field(
            description="file with lines `send <token>`, reloaded when it changes; without it, "
            "only this machine may send"
        ),
    ] = None
    require_tokens: RequireTokens = False
    intake_events: Annotated[int, Field(ge=1, description="maximum events per request")] = 500
    intake_body_bytes: Annotated[
        int, Field(ge=1024, description="maximum body of one request, in bytes")
    ] = 4 << 20
    intake_in_flight_bytes: Annotated[
        int,
        Field(ge=1024, description="maximum bytes in flight; requests beyond it are answered 429"),
    ] = 32 << 20
    intake_acknowledged_seconds: Annotated[
        float,
        Field(gt=0, description="timeout for Kafka's acknowledgement; then the answer is 503"),
    ] = 10.0
