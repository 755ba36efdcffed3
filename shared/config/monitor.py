"""Settings of the live monitor: when a champion counts as worse, and how the registry reacts."""

from typing import Annotated, Self

from pydantic import Field, FiniteFloat, model_validator

from shared.events import FrozenModel

DEFAULT_KNOWN_USER_HOURS = 24.0

FORMER_REWARDS_PER_USER = 5
"""Default of earlier versions, here and in `CanarySettings`."""


class MonitorSettings(FrozenModel):
    """Rules for comparing the champion in live use with the version before it, and for rolling
    back.
    """

    acts: Annotated[bool, Field(description="roll back automatically; if false, only report")] = (
        True
    )
    error: Annotated[
        FiniteFloat,
        Field(
            gt=0,
            lt=0.5,
            description="maximum probability of calling a version worse that is not (type I error)",
        ),
    ] = 0.02
    tolerated_drop: Annotated[
        FiniteFloat,
        Field(ge=0, lt=2, description="drop of the mean reward that does not count as worse"),
    ] = 0.0
    minimum_rewards: Annotated[
        int, Field(ge=2, le=1000, description="rewards of either version before any decision")
    ] = 30
    most_rewards: Annotated[
        int,
        Field(
            ge=2,
            le=100_000,
            description="the first rewards of a version that are stored and tested",
        ),
    ] = 2000
    rewards_per_user: Annotated[
        int, Field(ge=1, description="rewards of one user that count, per version")
    ] = 1
    known_user_hours: Annotated[
        FiniteFloat,
        Field(
            ge=0,
            le=24 * 90,
            description="hours after a user's first feedback from which rewards of the user count, "
            "here and in canary trials",
            exclude_if=lambda hours: hours == DEFAULT_KNOWN_USER_HOURS,
        ),
    ] = DEFAULT_KNOWN_USER_HOURS
    rollbacks_per_day: Annotated[
        int,
        Field(
            ge=1,
            le=100,
            description="automatic rollbacks; the last one puts the model on hold",
        ),
    ] = 2

    @model_validator(mode="after")
    def _rewards_suffice(self) -> Self:
        if self.most_rewards < self.minimum_rewards:
            raise ValueError(
                "most_rewards: expected at least minimum_rewards, or no decision is possible"
            )
        return self
