"""Training requests on the in-memory bus: one batch or one refusal each, after any interruption."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from services.dataset.builder.build_order import BuildOrder
from services.dataset.builder.requests import MAX_DETAIL, TrainingRequests
from services.dataset.training_announcement import write_training_batch
from shared.config.model_file import ModelFile
from shared.config.models import Models
from shared.errors import (
    BusUnavailable,
    CommandRefused,
    ContractViolation,
    StorageUnavailable,
    UnknownModel,
)
from shared.events import (
    Artefact,
    BatchReady,
    TrainingRequestAnswered,
    TrainingRequested,
    UploadedFile,
)
from shared.messaging.bus import MemoryBus, Record
from shared.messaging.codec import Headers, decode, encode
from shared.messaging.topics import TRAINING_ANSWERS, TRAINING_BATCHES, TRAINING_REQUESTS
from shared.storage.object_store import MemoryStore
from shared.storage.uploads import upload_key
from tests.support.imported_files import chat, import_into, write_jsonl
from tests.support.runtime import runtime_of
from tests.support.scored_feedback import START, model_file

MODEL_FILE = ModelFile.model_validate(
    model_file(smallest_batch=3).model_dump() | {"lanes": {"adaptive": {}, "master": {}}}
)
MODELS = Models({"support": MODEL_FILE}, Path())
ABSENT = Artefact(uri="snapshots/none.json", digest=f"sha256:{'a' * 64}")


@dataclass
class FailingBus(MemoryBus):
    """A bus that does not take the record number `fails_at`, once."""

    fails_at: int = -1
    sent: int = 0

    async def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers
    ) -> None:
        self.sent += 1
        if self.sent == self.fails_at:
            raise BusUnavailable("not now")
        await super().send(topic, key, value, headers)


@dataclass
class World:
    """A builder whose orders are carried out in this process."""

    folder: Path
    bus: FailingBus = field(default_factory=FailingBus)
    store: MemoryStore = field(default_factory=MemoryStore)
    batches: list[BatchReady] = field(default_factory=list)
    orders: list[BuildOrder] = field(default_factory=list)
    error: Exception | None = None

    def dataset(self) -> Artefact:
        path = write_jsonl(self.folder / "a.jsonl", [chat(str(n)) for n in range(20)])
        report = import_into(self.store, path, MODEL_FILE)
        assert report.manifest is not None, report.refused
        return report.manifest

    async def build(
        self, order: BuildOrder, report_progress: Callable[[str], Awaitable[None]]
    ) -> BatchReady:
        self.orders.append(order)
        await report_progress("20 lines read")
        if self.error is not None:
            raise self.error
        request = order.request
        return write_training_batch(
            self.store,
            MODEL_FILE,
            request.data,
            order.previous,
            order.number,
            request.hyperparameters,
            request.occurred_at,
        )

    async def handle(self, request: TrainingRequested) -> None:
        value, headers = encode(request, "/test")

        async def read_batches() -> list[BatchReady]:
            return self.batches

        handler = TrainingRequests(
            MODELS, self.folder, self.store, self.bus, read_batches, self.build, runtime_of()
        )
        await handler.handle(Record(TRAINING_REQUESTS, 0, 0, b"support", value, tuple(headers)))

    def announced(self) -> list[BatchReady]:
        return [
            decode(record.value, record.headers, BatchReady).event
            for record in self.bus.topics.get(TRAINING_BATCHES, [])
        ]

    def answers(self) -> list[TrainingRequestAnswered]:
        return [
            decode(record.value, record.headers, TrainingRequestAnswered).event
            for record in self.bus.topics.get(TRAINING_ANSWERS, [])
        ]

    def states(self) -> list[str]:
        return [answer.state for answer in self.answers()]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def requested(data: Artefact, **changed: Any) -> TrainingRequested:
    fields = {
        "event_id": "r1",
        "occurred_at": START,
        "request_id": "r1",
        "model": "support",
        "lane": "master",
        "data": data,
        "reason": "new product line",
    }
    return TrainingRequested.model_validate(fields | changed)


async def test_request_becomes_a_batch_and_answers(world: World) -> None:
    await world.handle(requested(world.dataset(), hyperparameters={"rank": 32}))
    [batch] = world.announced()
    assert (batch.lane, batch.hyperparameters) == ("master", {"rank": 32})
    assert world.states() == ["building", "building", "announced"]
    assert world.answers()[1].detail == "20 lines read"
    answer = world.answers()[-1]
    assert (answer.batch_id, answer.counts) == (batch.batch_id, batch.counts)


async def test_batch_comes_after_the_newest_feedback(world: World) -> None:
    await world.handle(requested(world.dataset()))
    [first] = world.announced()
    world.batches = [first.model_copy(update={"lane": "adaptive", "number": 4})]
    await world.handle(requested(world.dataset(), request_id="r2", event_id="r2"))
    assert world.announced()[1].number == 5
    assert world.orders[1].previous == first.manifest


@pytest.mark.parametrize("fails_at", [3, 4])
async def test_repeated_request_is_the_same_batch(world: World, fails_at: int) -> None:
    """The batch is recorded, then its announcement or the answer fails; meanwhile a batch of
    feedback comes, which a new attempt would have put before it.
    """
    request = requested(world.dataset())
    world.bus.fails_at = fails_at
    if fails_at == 4:
        with pytest.raises(BusUnavailable):
            await world.handle(request)
    else:
        await world.handle(request)  # the announcement is retried
    [batch] = world.announced()
    world.batches = [batch.model_copy(update={"lane": "adaptive", "batch_id": "f", "number": 4})]
    await world.handle(request)
    assert world.announced() == [batch, batch]
    assert len(world.orders) == 1
    assert world.answers()[-1].batch_id == batch.batch_id


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"hyperparameters": {"rank": 100}}, "outside 8 to 64, the range of the lane master"),
        ({"hyperparameters": {"epoch": 2}}, "did you mean epochs?"),
        ({"lane": "adaptive"}, "trained in the lane master"),
        ({"data": ABSENT}, "none.json is not in the object store"),
    ],
)
async def test_wrong_request_is_refused_with_its_reason(
    world: World, changed: dict[str, Any], reason: str
) -> None:
    await world.handle(requested(**{"data": world.dataset()} | changed))
    assert world.announced() == []
    assert world.states()[-1] == "refused"
    assert reason in world.answers()[-1].detail


async def test_refused_file_is_deleted_with_its_answer(world: World) -> None:
    """The reason is bounded and can be stored in any database."""
    key = upload_key("support", "0" * 32, START)
    world.error = CommandRefused("too few \0 examples" + "x" * 10_000)
    request = requested(world.store.put(key, b"{}"), file=UploadedFile(name="a.jsonl"))
    await world.handle(request)
    detail = world.answers()[-1].detail
    assert detail.startswith("too few  examples")
    assert len(detail) == MAX_DETAIL
    assert not world.store.exists(key)
    # Delivered again after a crash: the same answer.
    await world.handle(request)
    assert world.answers()[-1].event_id == world.answers()[2].event_id


async def test_unavailable_store_leaves_the_request_open(world: World) -> None:
    key = upload_key("support", "0" * 32, START)
    world.error = StorageUnavailable("not now")
    with pytest.raises(StorageUnavailable):
        await world.handle(
            requested(world.store.put(key, b"{}"), file=UploadedFile(name="a.jsonl"))
        )
    assert set(world.states()) == {"building"}
    assert world.store.exists(key)


@pytest.mark.parametrize(
    "key",
    [
        "snapshots/support/0/m.json",
        upload_key("other", "0" * 32, START),
        f"uploads/support/{START + timedelta(days=1):%Y-%m-%d}/../x",
    ],
)
async def test_file_outside_the_uploads_is_never_touched(world: World, key: str) -> None:
    """Answered requests delete their file: it has to be an upload of the model."""
    world.store.objects[key] = b"{}"
    data = Artefact(uri=key, digest=f"sha256:{'a' * 64}")
    with pytest.raises(ContractViolation):
        await world.handle(requested(data, file=UploadedFile(name="a.jsonl")))
    assert key in world.store.objects


async def test_request_for_an_unknown_model_is_a_dead_letter(world: World) -> None:
    with pytest.raises(UnknownModel):
        await world.handle(requested(world.dataset(), model="other"))
