"""Events of training that a person starts, from a page or over HTTP.

registry ──▶ training.requests ──▶ dataset
dataset ──▶ training.answers ──▶ registry
"""

from typing import Annotated, Literal

from pydantic import Field

from shared.events.base import Artefact, Event, FrozenModel, Id, Name
from shared.events.hyperparameters import HyperparameterValue, Lane
from shared.events.training import BatchCounts

RecordFormat = Literal[
    "preference", "openai-preference", "chat", "sharegpt", "alpaca", "completion"
]

RequestState = Literal["building", "announced", "refused"]

UploadName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class UploadedFile(FrozenModel):
    """Name and record format of an uploaded file."""

    name: Annotated[UploadName, Field(description="name of the file; CSV needs its suffix")]
    format: Annotated[
        RecordFormat | None, Field(description="format of its records; null: recognised by fields")
    ] = None


class TrainingRequested(Event):
    """A person wants a model to be trained on an imported dataset, or on an uploaded file, which is
    deleted from the object store when the request has been answered. `TrainingRequestAnswered`
    events answer it.
    """

    request_id: Annotated[Id, Field(description="id of the request")]
    model: Annotated[Name, Field(description="name of the model")]
    lane: Annotated[Lane, Field(description="training lane")]
    data: Annotated[
        Artefact,
        Field(description="manifest of the imported dataset, or the file `uploads/<model>/...`"),
    ]
    file: Annotated[
        UploadedFile | None, Field(description="name and format if `data` is an uploaded file")
    ] = None
    hyperparameters: Annotated[
        dict[str, HyperparameterValue] | None,
        Field(description="hyperparameters of the run that replace those of its lane"),
    ] = None
    requested_by: Annotated[
        str | None, Field(description="name of the token's owner; null for a token without one")
    ] = None
    reason: Annotated[str, Field(description="reason given by the person")]


class TrainingRequestAnswered(Event):
    """State of a training request: its data are being read (`building`, repeatedly), its batch is
    announced, or it is refused. The last two are final.
    """

    request_id: Annotated[Id, Field(description="id of the request")]
    model: Annotated[Name, Field(description="name of the model")]
    state: Annotated[RequestState, Field(description="state of the request")]
    detail: Annotated[
        str, Field(description="progress, or reason of the refusal, in plain text")
    ] = ""
    batch_id: Annotated[Id | None, Field(description="announced batch")] = None
    counts: Annotated[
        BatchCounts | None, Field(description="number of examples of each kind in the batch")
    ] = None
