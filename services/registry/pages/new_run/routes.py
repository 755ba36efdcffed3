"""Routes of the pages of a new training run. They need no JavaScript; only the page of a request
updates itself with it.
"""

import asyncio
import re
from typing import get_args
from uuid import uuid4

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import ValidationError
from starlette.datastructures import UploadFile

from services.registry.api.authorization import Operator, require_operator, require_reader
from services.registry.api.training_requests.requests import (
    TrainingStarts,
    require_request,
    view_of,
)
from services.registry.api.training_requests.schemas import TrainingRequestBody, UploadReference
from services.registry.api.views import View
from services.registry.pages.errors import page_route_class
from services.registry.pages.forms import form_of
from services.registry.pages.new_run.draft import (
    LANE,
    RunDraft,
    chunks_of,
    hyperparameter_fields,
    read_draft,
)
from services.registry.pages.rendering import Templates
from services.registry.store.database import Session
from services.registry.store.queries import runs_of
from services.registry.training_requests import NewRequest, TrainingRequestRefused
from shared.config.model_file import ModelFile
from shared.errors import InvalidArtefact, Unprocessable
from shared.events import RecordFormat, RunMetrics
from shared.storage.imported_datasets import dataset_id_of, imported_datasets
from shared.storage.snapshots import read_manifest

MAX_DATASETS = 200
_RUNS = 200

_NAME = re.compile(r"[^A-Za-z0-9._-]+")


def add_new_run_pages(app: FastAPI, starts: TrainingStarts) -> None:
    """Add the pages to an application."""
    registry = starts.registry
    templates = Templates(registry.clock)
    route = page_route_class(templates)
    pages = APIRouter(
        include_in_schema=False, route_class=route, dependencies=[Depends(require_reader)]
    )
    forms = APIRouter(
        include_in_schema=False, route_class=route, dependencies=[Depends(require_operator)]
    )

    async def form_page(
        model_file: ModelFile, draft: RunDraft, problem: str = "", status: int = 200
    ) -> Response:
        declared = LANE in model_file.lanes
        often, others = hyperparameter_fields(model_file, draft) if declared else ([], [])
        stored = await asyncio.to_thread(imported_datasets, starts.store, model_file.model)
        return templates.page(
            "train.html",
            status,
            model=model_file.model,
            lane=LANE,
            declared=declared,
            draft=draft,
            often=often,
            others=others,
            more_entered=any(field.entered for field in others),
            datasets=[dataset_id_of(artefact) for artefact in stored[:MAX_DATASETS]],
            formats=get_args(RecordFormat),
            max_mib=starts.uploads.max_bytes >> 20,
            problem=problem,
        )

    async def with_file(model: str, draft: RunDraft, file: UploadFile) -> RunDraft:
        """Store the chosen file, and return the draft that refers to it."""
        stored = await starts.uploads.receive(
            model, chunks_of(file), file.size, None, registry.clock.now()
        )
        name = _NAME.sub("_", file.filename or "")[-100:].lstrip("._-") or "file"
        reference = UploadReference(
            upload=stored.artefact.uri, digest=stored.artefact.digest, name=name
        )
        return draft.with_upload(reference)

    @forms.get("/models/{model}/train")
    async def new_run(model: str) -> Response:
        return await form_page(registry.models.get(model), RunDraft())

    @forms.post("/models/{model}/train")
    async def check(model: str, request: Request) -> Response:
        """Check the form. A file that it has is stored, and stays when the form is corrected."""
        model_file = registry.models.get(model)
        draft = RunDraft()
        try:
            async with read_draft(request, starts.uploads.max_bytes) as (draft, file):
                if file is not None:
                    draft = await with_file(model, draft, file)
            body = draft.body()
            new = await starts.check(model_file, body, uuid4().hex)
            data = await asyncio.to_thread(_data_view, starts, new)
        except ValidationError as error:
            return await form_page(model_file, draft, _problem(error), 422)
        except (TrainingRequestRefused, InvalidArtefact, Unprocessable) as error:
            return await form_page(model_file, draft, f"{error}.", 422)
        training = model_file.lanes[LANE].training.with_values(body.hyperparameters)
        return templates.page(
            "train_check.html",
            model=model,
            lane=LANE,
            request=body.model_dump_json(),
            key=new.request_id,
            reason=body.reason,
            data=data,
            changed=sorted(body.hyperparameters),
            last=await registry.database.run(lambda session: _newest_costs(session, model)),
            configuration=training.model_dump(exclude={"lane"}),
        )

    @forms.post("/models/{model}/training-requests")
    async def start(model: str, request: Request, operator: Operator) -> Response:
        model_file = registry.models.get(model)
        form = await form_of(request)
        try:
            body = TrainingRequestBody.model_validate_json(form.get("request", ""))
        except ValidationError as error:
            raise HTTPException(400, "the form has no training request; begin again") from error
        try:
            view = await starts.start(model, body, form.get("key") or None, operator.name)
        except TrainingRequestRefused as error:
            return await form_page(model_file, RunDraft(reason=body.reason), f"{error}.", 422)
        return RedirectResponse(f"/models/{model}/training-requests/{view['request_id']}", 303)

    async def request_view(model: str, request_id: str) -> View:
        registry.models.get(model)
        view = await registry.database.run(
            lambda session: view_of(session, require_request(session, model, request_id))
        )
        return view | {"ended": view["state"] == "refused" or view["run_id"] is not None}

    @pages.get("/models/{model}/training-requests/{request_id}")
    async def show_request(model: str, request_id: str) -> Response:
        view = await request_view(model, request_id)
        return templates.page("training_request.html", shown=view)

    @pages.get("/models/{model}/training-requests/{request_id}/state")
    async def show_state(model: str, request_id: str) -> Response:
        """State of a request, polled by its page until its run has started."""
        view = await request_view(model, request_id)
        return templates.page("_training_request.html", shown=view)

    app.include_router(pages)
    app.include_router(forms)


def _data_view(starts: TrainingStarts, new: NewRequest) -> View:
    """Return what is known of the data of a request: for a dataset, its counts. Raises
    InvalidArtefact.
    """
    if new.file is not None:
        return {"name": new.file.name, "format": new.file.format, "dataset": None, "counts": None}
    manifest = read_manifest(starts.store, new.data)
    source = manifest.imported
    return {
        "name": f"{new.model}@{(new.dataset or '')[:12]}",
        "format": None,
        "dataset": new.dataset,
        "counts": manifest.counts.model_dump(),
        "dropped": manifest.dropped,
        "lines": source.lines if source else None,
    }


def _newest_costs(session: Session, model: str) -> View | None:
    """Return what the newest ended run of the lane took, None without one."""
    for run in runs_of(session, model, _RUNS):
        if run.lane == LANE and run.metrics:
            metrics = RunMetrics.model_validate(run.metrics)
            return {
                "run_id": run.run_id,
                "minutes": (metrics.train_seconds + metrics.evaluate_seconds) / 60,
                "examples": metrics.examples_new + metrics.examples_replayed,
                "epochs": metrics.epochs,
            }
    return None


def _problem(error: ValidationError) -> str:
    """Return the errors of a form's fields as sentences."""
    return " ".join(
        f"{'.'.join(map(str, item['loc'])) or 'form'}: {item['msg']}." for item in error.errors()
    )
