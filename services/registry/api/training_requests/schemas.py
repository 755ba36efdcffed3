"""Bodies and responses of training requests."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from services.registry.api.holds import Reason
from services.registry.api.schemas import ApiModel
from shared.events import BatchCounts, Digest, RecordFormat, UploadName
from shared.events.hyperparameters import HyperparameterValue

UploadId = Annotated[str, Field(max_length=200, description="`upload` of the upload's response")]


class UploadReference(BaseModel):
    """An uploaded file to train on."""

    model_config = ConfigDict(extra="forbid")

    upload: UploadId
    digest: Digest
    name: UploadName
    format: RecordFormat | None = None


class TrainingRequestBody(BaseModel):
    """Request to train a model on an imported dataset, by its ID or a prefix of it, or on an
    uploaded file.
    """

    model_config = ConfigDict(extra="forbid")

    dataset: Annotated[str, Field(pattern="^[0-9a-fA-F]{1,64}$")] | None = None
    file: UploadReference | None = None
    lane: Literal["master"] = "master"
    hyperparameters: Annotated[
        dict[str, HyperparameterValue],
        Field(description="hyperparameters that replace those of the lane, within its ranges"),
    ] = {}
    reason: Reason


class StoredUpload(ApiModel):
    """A stored file, for a training request. It is deleted when that is answered, or after a
    week.
    """

    upload: str
    digest: str
    name: str
    bytes: int


class TrainingRequestState(ApiModel):
    """A training request. `detail` is the progress, or the reason of the refusal; `batch_id` and
    `counts` are set once the batch is announced, `run_id` once its run has started.
    """

    request_id: str
    model: str
    lane: str
    dataset: str | None
    file: str | None
    hyperparameters: dict[str, Any]
    operator: str | None
    reason: str
    state: Literal["waiting", "building", "announced", "refused"]
    detail: str
    batch_id: str | None
    counts: BatchCounts | None
    run_id: str | None
    requested_at: datetime
    updated_at: datetime
