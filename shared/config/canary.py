"""Settings of the canary trial: a challenger serves some users before it becomes champion."""

from typing import Annotated, Self

from pydantic import Field, FiniteFloat, model_validator

from shared.events import FrozenModel


class CanarySettings(FrozenModel):
    """Share of users, duration and error rates of a canary trial.

    While a canary is running, only `share` may be changed.
    """

    share: Annotated[
        FiniteFloat, Field(gt=0, le=0.5, description="share of users who get the challenger")
    ] = 0.1
    rewards: Annotated[
        int,
        Field(
            ge=2,
            le=10_000,
            description="rewards of the challenger after which it is promoted unless worse",
        ),
    ] = 200
    hours: Annotated[
        FiniteFloat,
        Field(gt=0, le=24 * 90, description="hours after which it is promoted unless worse"),
    ] = 48.0
    error: Annotated[
        FiniteFloat,
        Field(
            gt=0,
            lt=0.5,
            description="maximum probability of a wrong decision, in either direction",
        ),
    ] = 0.02
    minimum_rewards: Annotated[
        int, Field(ge=2, le=1000, description="rewards of either version before any decision")
    ] = 30
    rewards_per_user: Annotated[
        int, Field(ge=1, description="rewards of one user that count, per version")
    ] = 1

    @model_validator(mode="after")
    def _rewards_suffice(self) -> Self:
        if self.rewards < self.minimum_rewards:
            raise ValueError(
                "rewards: expected at least minimum_rewards, or no decision is possible"
            )
        return self
