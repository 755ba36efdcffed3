"""How what the gate promotes is tried on some users before it becomes champion."""

from typing import Annotated, Self

from pydantic import Field, FiniteFloat, model_validator

from shared.events import FrozenModel


class CanarySettings(FrozenModel):
    """Who gets a challenger's answers, and how long it is tried. Of a trial that is on only the
    share may be changed.
    """

    share: Annotated[
        FiniteFloat, Field(gt=0, le=0.5, description="of users who get the challenger")
    ] = 0.1
    rewards: Annotated[
        int,
        Field(
            ge=2,
            le=10_000,
            description="of the challenger, after which it is promoted if it is not worse",
        ),
    ] = 200
    hours: Annotated[
        FiniteFloat,
        Field(gt=0, le=24 * 90, description="after which it is promoted if it is not worse"),
    ] = 48.0
    error: Annotated[
        FiniteFloat,
        Field(
            gt=0,
            lt=0.5,
            description="how often, at most, one that is not worse is called worse; likewise better",
        ),
    ] = 0.02
    minimum_rewards: Annotated[
        int, Field(ge=2, le=1000, description="of either version, before anything is said")
    ] = 30
    rewards_per_user: Annotated[int, Field(ge=1, description="that count, for each version")] = 5

    @model_validator(mode="after")
    def _hears_enough(self) -> Self:
        if self.rewards < self.minimum_rewards:
            raise ValueError("rewards: less than minimum_rewards, so nothing would ever be said")
        return self
