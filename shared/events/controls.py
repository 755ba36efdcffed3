"""Events of operators' decisions on training.

registry ──▶ training.controls ──▶ trainer
"""

from typing import Annotated, TypeAlias

from pydantic import Field

from shared.events.base import Event, Id, Name

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


RunChangeNumber = Annotated[
    int,
    Field(
        ge=1,
        description="number of the change of this run, from 1; the highest one counts",
    ),
]


class RunCancelled(Event):
    """A run was cancelled before it had an outcome: it is not trained until a `RunResumed` with a
    higher number. If its outcome was on its way already, a candidate that the gate promotes waits
    for an operator.
    """

    model: Annotated[Name, Field(description="name of the model")]
    run_id: Annotated[Id, Field(description="id of the run")]
    batch_id: Annotated[Id, Field(description="batch of the run")]
    number: RunChangeNumber
    actor: Annotated[str, Field(description="person who cancelled it")]
    reason: Annotated[str, Field(description="reason")]


class RunResumed(Event):
    """A cancelled run was resumed: its batch is trained after all."""

    model: Annotated[Name, Field(description="name of the model")]
    run_id: Annotated[Id, Field(description="id of the run")]
    batch_id: Annotated[Id, Field(description="batch of the run")]
    number: RunChangeNumber
    actor: Annotated[str, Field(description="person who resumed it")]
    reason: Annotated[str, Field(description="reason")]


PauseEvent: TypeAlias = TrainingPaused | TrainingResumed
RunControlEvent: TypeAlias = RunCancelled | RunResumed
ControlEvent: TypeAlias = PauseEvent | RunControlEvent
"""Events by which operators control training, about one model each."""
