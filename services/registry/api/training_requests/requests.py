"""Training requests: checked, then recorded once per idempotency key."""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import uuid4

from services.registry.api.idempotency import KeyReused
from services.registry.api.pagination import Page, PageRequest, paginate
from services.registry.api.training_requests.schemas import TrainingRequestBody
from services.registry.api.training_requests.uploads import Uploads
from services.registry.api.views import View
from services.registry.app import Registry
from services.registry.store.database import Session
from services.registry.store.tables import TrainingRequestRow
from services.registry.store.training_request_queries import run_of_batch, training_requests_of
from services.registry.training_requests import (
    NewRequest,
    TrainingRequestRefused,
    UnknownTrainingRequest,
    request_training,
)
from shared.config.base_targets import require_run
from shared.config.model_file import ModelFile
from shared.errors import CommandRefused, InvalidArtefact, Misconfigured
from shared.events import Artefact, TrainingRequested, UploadedFile
from shared.identity import identity
from shared.storage.imported_datasets import dataset_id_of, find_imported
from shared.storage.object_store import ObjectStore


@dataclass(frozen=True, slots=True)
class TrainingStarts:
    """Starts trainings for operators, from API and pages."""

    registry: Registry
    store: ObjectStore
    uploads: Uploads
    bases: Path

    async def start(
        self, model: str, body: TrainingRequestBody, key: str | None, operator: str | None
    ) -> View:
        """Record a training request, and return it. A repeated request with the same key returns
        the request that exists. Raises TrainingRequestRefused, KeyReused, UnknownModel.
        """
        model_file = self.registry.models.get(model)
        request_id = identity("training request", model, key) if key else uuid4().hex
        fingerprint = _fingerprint(model, body)
        if key and (known := await self._known(request_id, fingerprint)):
            return known
        new = await self.check(model_file, body, request_id)

        def once(session: Session, now: datetime) -> tuple[TrainingRequested | None, View]:
            row = session.get(TrainingRequestRow, request_id)
            if row is not None:
                return None, _same(session, row, fingerprint)
            event = request_training(session, new, now)
            session.flush()
            return event, view_of(session, session.get_one(TrainingRequestRow, request_id))

        _, view = await self.registry.decide(once, operator)
        return view

    async def check(
        self, model_file: ModelFile, body: TrainingRequestBody, request_id: str
    ) -> NewRequest:
        """Return the request if it passes all checks that need no reading of the data; it is not
        recorded. Raises TrainingRequestRefused.
        """
        return await asyncio.to_thread(self._checked, model_file, body, request_id)

    def _checked(
        self, model_file: ModelFile, body: TrainingRequestBody, request_id: str
    ) -> NewRequest:
        try:
            require_run(model_file, body.lane, body.hyperparameters, self.bases)
            data = self._data(model_file.model, body)
        except (Misconfigured, CommandRefused, InvalidArtefact) as error:
            raise TrainingRequestRefused(str(error)) from error
        return NewRequest(
            request_id=request_id,
            model=model_file.model,
            lane=body.lane,
            data=data,
            dataset=dataset_id_of(data) if body.file is None else None,
            file=UploadedFile(name=body.file.name, format=body.file.format) if body.file else None,
            hyperparameters=body.hyperparameters,
            reason=body.reason,
            fingerprint=_fingerprint(model_file.model, body),
        )

    def _data(self, model: str, body: TrainingRequestBody) -> Artefact:
        if (body.dataset is None) == (body.file is None):
            raise CommandRefused("name either a dataset or an uploaded file")
        if body.dataset is not None:
            return find_imported(self.store, f"{model}@{body.dataset}")
        assert body.file is not None
        if not self.uploads.exists(model, body.file.upload):
            raise CommandRefused(
                f"{model} has no upload {body.file.upload!r}; upload the file again"
            )
        return Artefact(uri=body.file.upload, digest=body.file.digest)

    async def _known(self, request_id: str, fingerprint: str) -> View | None:
        """Return the request that an earlier HTTP request with the same key has made."""

        def find(session: Session) -> View | None:
            row = session.get(TrainingRequestRow, request_id)
            return None if row is None else _same(session, row, fingerprint)

        return await self.registry.database.run(find)


def _fingerprint(model: str, body: TrainingRequestBody) -> str:
    return identity(model, body.model_dump_json())


def _same(session: Session, row: TrainingRequestRow, fingerprint: str) -> View:
    if row.fingerprint != fingerprint:
        raise KeyReused(
            "the Idempotency-Key was used for another training request; a new request needs a new "
            "key"
        )
    return view_of(session, row)


def view_of(session: Session, row: TrainingRequestRow) -> View:
    """Return a training request with the run of its batch."""
    run = run_of_batch(session, row.model, row.batch_id) if row.batch_id else None
    return {
        "request_id": row.request_id,
        "model": row.model,
        "lane": row.lane,
        "dataset": row.dataset,
        "file": row.file,
        "hyperparameters": row.hyperparameters,
        "operator": row.operator,
        "reason": row.reason,
        "state": row.state,
        "detail": row.detail,
        "batch_id": row.batch_id,
        "counts": row.counts,
        "run_id": run.run_id if run else None,
        "requested_at": row.requested_at,
        "updated_at": row.updated_at,
    }


def require_request(session: Session, model: str, request_id: str) -> TrainingRequestRow:
    """Return a request of a model. Raises UnknownTrainingRequest."""
    row = session.get(TrainingRequestRow, request_id)
    if row is None or row.model != model:
        raise UnknownTrainingRequest(
            f"{model} has no training request {request_id!r}; "
            f"GET /api/models/{model}/training-requests lists them"
        )
    return row


def requests_page(
    session: Session, model: str, page: PageRequest[tuple[datetime, str]]
) -> Page[View]:
    """Return training requests of a model, newest first."""
    result = paginate(
        page,
        training_requests_of(session, model, page.limit + 1, page.after),
        lambda row: [row.requested_at.isoformat(), row.request_id],
    )
    return Page([view_of(session, row) for row in result.rows], result.next)
