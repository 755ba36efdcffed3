"""When a champion is called worse in live use, and what the registry does then by itself."""

from typing import Annotated, Self

from pydantic import Field, FiniteFloat, model_validator

from shared.events import FrozenModel


class MonitorSettings(FrozenModel):
    """How the champion is watched in live use, and what happens when it does worse than the version
    before it.
    """

    acts: Annotated[
        bool, Field(description="whether the registry rolls back by itself, or only tells")
    ] = True
    error: Annotated[
        FiniteFloat,
        Field(
            gt=0,
            lt=0.5,
            description="how often, at most, a version that is not worse is taken for worse",
        ),
    ] = 0.02
    tolerated_drop: Annotated[
        FiniteFloat, Field(ge=0, lt=2, description="of the mean reward, that is not called worse")
    ] = 0.0
    minimum_rewards: Annotated[
        int, Field(ge=2, le=1000, description="of either version, before anything is said")
    ] = 30
    most_rewards: Annotated[
        int,
        Field(
            ge=2, le=100_000, description="the first ones of a version that are kept and looked at"
        ),
    ] = 2000
    rewards_per_user: Annotated[int, Field(ge=1, description="that count, for each version")] = 5
    rollbacks_per_day: Annotated[
        int,
        Field(
            ge=1,
            le=100,
            description="by itself; the last of them puts the model on hold until an operator lifts it",
        ),
    ] = 2

    @model_validator(mode="after")
    def _keeps_enough(self) -> Self:
        if self.most_rewards < self.minimum_rewards:
            raise ValueError(
                "most_rewards: less than minimum_rewards, so nothing would ever be said"
            )
        return self
