"""Handling of training requests: each becomes one announced batch, or a refusal with its reason.

The announcement is recorded in the object store before it is sent. So a request that is delivered
again after a crash is the same batch, whatever batches of feedback have come meanwhile.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol

from services.dataset import SOURCE
from services.dataset.builder.build_order import BuildOrder
from services.dataset.training_announcement import announce_batch
from shared.config.base_targets import require_run
from shared.config.model_file import ModelFile
from shared.config.models import Models
from shared.errors import (
    CommandRefused,
    ContractViolation,
    InvalidArtefact,
    Misconfigured,
    ObjectNotFound,
    Undecodable,
)
from shared.events import BatchReady, RequestState, TrainingRequestAnswered, TrainingRequested
from shared.events.hyperparameters import Lane
from shared.failpoints import reach
from shared.identity import identity
from shared.kafka.announced_batches import newest_feedback_batch
from shared.messaging.bus import Producer, Record, publish
from shared.messaging.codec import decode
from shared.messaging.topics import TRAINING_ANSWERS
from shared.service.runtime import Runtime
from shared.storage.keys import require_artefacts
from shared.storage.object_store import ObjectStore
from shared.storage.snapshots import IMPORTED_FOLDER
from shared.storage.uploads import is_upload_of

IMPORT_LANE: Lane = "master"
MAX_DETAIL = 4000


class Build(Protocol):
    """Carries out an order. Raises CommandRefused, Misconfigured, InvalidArtefact, Unavailable."""

    async def __call__(
        self, order: BuildOrder, report_progress: Callable[[str], Awaitable[None]]
    ) -> BatchReady: ...


class TrainingRequests:
    """Handles training requests, one at a time."""

    def __init__(
        self,
        models: Models,
        bases: Path,
        store: ObjectStore,
        producer: Producer,
        read_batches: Callable[[], Awaitable[Sequence[BatchReady]]],
        build: Build,
        runtime: Runtime,
    ) -> None:
        """`read_batches` returns all announced batches, in the order of the log."""
        self._models = models
        self._bases = bases
        self._store = store
        self._producer = producer
        self._read_batches = read_batches
        self._build = build
        self._runtime = runtime

    async def handle(self, record: Record) -> None:
        """Answer one request; may be repeated. Raises Unprocessable for a record that is no
        request, Unavailable.
        """
        request = decode(record.value, record.headers, TrainingRequested).event
        require_artefacts(request)
        model_file = self._models.get(request.model)
        if request.file is not None and not is_upload_of(request.model, request.data.uri):
            raise ContractViolation(f"is no uploaded file of {request.model}", "data.uri")
        try:
            batch = await self._recorded(request) or await self._new_batch(request, model_file)
        except (CommandRefused, Misconfigured, InvalidArtefact) as error:
            self._runtime.log.warning(
                "training request refused", request=request.request_id, reason=str(error)
            )
            await self._answer(request, "refused", str(error))
        else:
            await announce_batch(self._producer, batch, self._runtime.log)
            await reach("builder.announced")
            self._runtime.log.info(
                "training request announced", request=request.request_id, batch=batch.batch_id
            )
            await self._answer(request, "announced", batch=batch)
        await reach("builder.answered")
        if request.file is not None:
            await asyncio.to_thread(self._store.delete, request.data.uri)

    async def _new_batch(self, request: TrainingRequested, model_file: ModelFile) -> BatchReady:
        """Build the batch of a request, and record its announcement."""
        await self._answer(request, "building")
        if request.lane != IMPORT_LANE:
            raise CommandRefused(f"imported datasets are trained in the lane {IMPORT_LANE}")
        require_run(model_file, request.lane, request.hyperparameters or {}, self._bases)
        newest, number = newest_feedback_batch(await self._read_batches(), request.model)
        order = BuildOrder(
            request=request, previous=newest.manifest if newest else None, number=number
        )
        batch = await self._build(order, lambda text: self._answer(request, "building", text))
        await asyncio.to_thread(
            self._store.put, _record_key(request), batch.model_dump_json().encode()
        )
        await reach("builder.recorded")
        return batch

    async def _recorded(self, request: TrainingRequested) -> BatchReady | None:
        """Return the announcement that an interrupted attempt has recorded, None without one."""
        key = _record_key(request)
        try:
            return BatchReady.model_validate_json(await asyncio.to_thread(self._store.get, key))
        except ObjectNotFound:
            return None
        except ValueError as error:
            raise Undecodable(f"{key} is no announcement: {error}") from error

    async def _answer(
        self,
        request: TrainingRequested,
        state: RequestState,
        detail: str = "",
        batch: BatchReady | None = None,
    ) -> None:
        """Publish an answer. The same answer has the same id."""
        self._runtime.health.record_progress(busy=True)
        detail = detail.replace("\0", "")[:MAX_DETAIL]
        event = TrainingRequestAnswered(
            event_id=identity("training answer", request.request_id, state, detail),
            occurred_at=self._runtime.clock.now(),
            request_id=request.request_id,
            model=request.model,
            state=state,
            detail=detail,
            batch_id=batch.batch_id if batch else None,
            counts=batch.counts if batch else None,
        )
        await publish(self._producer, TRAINING_ANSWERS, request.model, event, SOURCE)


def _record_key(request: TrainingRequested) -> str:
    """Key of the announcement of a request, as JSON."""
    name = identity("training request", request.request_id)
    return f"snapshots/{request.model}/{IMPORTED_FOLDER}/requests/{name}.json"
