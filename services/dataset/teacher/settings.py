"""Settings of a teacher, as a recipe has them."""

from typing import Annotated

from pydantic import Field, StringConstraints

from shared.events import FrozenModel


class TeacherSettings(FrozenModel):
    """A teacher and the budget of a build. Replies from the cache count like new ones, so that a
    build that is repeated after an interruption asks for the same.
    """

    url: Annotated[
        str,
        StringConstraints(pattern=r"^https?://[^\s@]+$", max_length=500),
        Field(description="base URL of the API, such as http://127.0.0.1:11434/v1"),
    ]
    model: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    calls: Annotated[int, Field(ge=1, le=100_000, description="most calls of a build")] = 400
    tokens: Annotated[
        int, Field(ge=1, description="most tokens of a build, of prompts and replies together")
    ] = 2_000_000
    examples_per_chunk: Annotated[int, Field(ge=1, le=20)] = 3
    concurrency: Annotated[int, Field(ge=1, le=64)] = 4
    timeout_seconds: Annotated[float, Field(gt=0, le=3_600)] = 300.0
    max_reply_tokens: Annotated[int, Field(ge=64, le=100_000)] = 4_096
