"""Events of operators' decisions on training.

registry ──▶ training.controls ──▶ trainer
"""

from typing import Annotated, TypeAlias

from pydantic import Field

from shared.events.base import Event, Name

ChangeNumber = Annotated[
    int,
    Field(ge=1, description="number of the change of this model, from 1; the highest one counts"),
]


class TrainingPaused(Event):
    """Training of `model` was paused: no run of it starts until a `TrainingResumed` with a higher
    number. A run that has started is completed, and batches keep forming.
    """

    model: Annotated[Name, Field(description="name of the model")]
    number: ChangeNumber
    actor: Annotated[str, Field(description="person who paused it")]
    reason: Annotated[str, Field(description="reason")]


class TrainingResumed(Event):
    """Training of `model` was resumed: its waiting batches are trained, the oldest first."""

    model: Annotated[Name, Field(description="name of the model")]
    number: ChangeNumber
    actor: Annotated[str, Field(description="person who resumed it")]
    reason: Annotated[str, Field(description="reason")]


ControlEvent: TypeAlias = TrainingPaused | TrainingResumed
"""Events by which operators control training, about one model each."""
