"""The form of a new training run, read from a multipart body within the upload limit."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from fastapi import HTTPException, Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from services.registry.api.training_requests.schemas import (
    TrainingRequestBody,
    UploadReference,
)
from services.registry.training_requests import UploadTooLarge
from shared.config.model_file import ModelFile
from shared.config.training import LANE_RANGES, TrainingConfig, parse_hyperparameter
from shared.events.hyperparameters import Lane

LANE: Lane = "master"

FIELD_BYTES = 64 << 10
"""Limit of the fields besides the file, together."""

MAX_FIELDS = 60
_CHUNK_BYTES = 1 << 20
_PREFIX = "set_"
_FIRST = (
    "rank",
    "alpha",
    "learning_rate",
    "epochs",
    "batch_size",
    "max_tokens",
    "replay",
    "targets",
)


class HyperparameterField(NamedTuple):
    """A hyperparameter in the form, with the text that was entered."""

    name: str
    description: str
    allowed: str
    default: object
    entered: str


@dataclass(frozen=True, slots=True)
class RunDraft:
    """The fields of the form as they were entered. `upload` is the file that is already stored."""

    dataset: str = ""
    format: str = ""
    reason: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    upload: UploadReference | None = None

    def body(self) -> TrainingRequestBody:
        """Return the request that the form describes. Raises ValidationError."""
        hyperparameters = {
            name: parse_hyperparameter(name, text) for name, text in self.values.items() if text
        }
        file = self.upload.model_dump() | {"format": self.format or None} if self.upload else None
        return TrainingRequestBody.model_validate(
            {
                "dataset": self.dataset or None,
                "file": file,
                "hyperparameters": hyperparameters,
                "reason": self.reason,
            }
        )

    def with_upload(self, upload: UploadReference) -> "RunDraft":
        return replace(self, upload=upload)


def hyperparameter_fields(
    model_file: ModelFile, draft: RunDraft
) -> tuple[list[HyperparameterField], list[HyperparameterField]]:
    """Return the fields of the form: the usual ones, and the others."""
    training, ranges = model_file.lanes[LANE].training, LANE_RANGES[LANE]
    names = [*_FIRST, *(name for name in ranges if name not in _FIRST)]
    fields = [
        HyperparameterField(
            name,
            TrainingConfig.model_fields[name].description or "",
            f"{ranges[name].minimum:g} to {ranges[name].maximum:g}" if name in ranges else "names",
            getattr(training, name),
            draft.values.get(name, ""),
        )
        for name in names
    ]
    return fields[: len(_FIRST)], fields[len(_FIRST) :]


@asynccontextmanager
async def read_draft(
    request: Request, max_bytes: int
) -> AsyncGenerator[tuple[RunDraft, UploadFile | None], None]:
    """Read a form, and its file if one was chosen; leaving the context deletes the file. Raises
    UploadTooLarge, HTTPException for a body that is no such form.
    """
    limit = max_bytes + FIELD_BYTES

    async def bounded() -> AsyncGenerator[bytes, None]:
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise UploadTooLarge(f"The file has more than {max_bytes >> 20} MiB.")
            yield chunk

    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise HTTPException(400, "invalid form: expected multipart/form-data")
    parser = MultiPartParser(
        request.headers, bounded(), max_files=1, max_fields=MAX_FIELDS, max_part_size=FIELD_BYTES
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise HTTPException(400, f"invalid form: {error.message}") from error
    try:
        file = form.get("file")
        fields = {name: value.strip() for name, value in form.items() if isinstance(value, str)}
        has_file = isinstance(file, UploadFile) and bool(file.filename)
        yield _draft(fields), file if isinstance(file, UploadFile) and has_file else None
    finally:
        await form.close()


async def chunks_of(file: UploadFile) -> AsyncGenerator[bytes, None]:
    while chunk := await file.read(_CHUNK_BYTES):
        yield chunk


def _draft(fields: Mapping[str, str]) -> RunDraft:
    values = {
        name.removeprefix(_PREFIX): text
        for name, text in fields.items()
        if name.startswith(_PREFIX)
    }
    stored = {name: fields.get(name, "") for name in ("upload", "digest", "name")}
    return RunDraft(
        dataset=fields.get("dataset", ""),
        format=fields.get("format", ""),
        reason=fields.get("reason", ""),
        values=values,
        upload=UploadReference.model_validate(stored) if stored["upload"] else None,
    )
