"""The builder on a real broker: killed at every point between a request and its answer, it
announces one batch.
"""

import asyncio
from pathlib import Path
from uuid import uuid4

import pytest

from shared.clock import SystemClock
from shared.events import (
    BatchCounts,
    BatchReady,
    TrainingRequestAnswered,
    TrainingRequested,
    UploadedFile,
)
from shared.identity import digest_of_file
from shared.kafka.client import KafkaProducer
from shared.messaging.bus import publish
from shared.messaging.codec import decode
from shared.messaging.topics import TRAINING_ANSWERS, TRAINING_BATCHES, TRAINING_REQUESTS
from shared.storage.object_store import FsspecStore
from shared.storage.uploads import upload_key
from tests.dataset.builder.test_worker import MODEL
from tests.support.imported_files import chat, write_jsonl
from tests.support.service_process import ServiceProcess, read

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]


class Builder:
    """A builder for a model of its own."""

    def __init__(self, broker: str, folder: Path) -> None:
        self.broker, self.folder = broker, folder
        self.model = f"requested-{uuid4().hex[:8]}"
        (folder / "models").mkdir()
        (folder / "models" / f"{self.model}.yaml").write_text(
            MODEL.replace("model: support", f"model: {self.model}")
        )
        self.store = FsspecStore(str(folder / "objects"))

    def process(self, failpoints: str = "") -> ServiceProcess:
        settings = {"RATCHET_BUILDER_GROUP": self.model}
        if failpoints:
            settings["RATCHET_FAILPOINTS"] = failpoints
        return ServiceProcess(
            "builder", self.broker, self.folder, module="services.dataset.builder", **settings
        )

    def request(self, request_id: str, lines: int) -> TrainingRequested:
        path = write_jsonl(self.folder / request_id, [chat(str(n)) for n in range(lines)])
        now = SystemClock().now()
        key = upload_key(self.model, uuid4().hex, now)
        self.store.put_file(key, path)
        return TrainingRequested(
            event_id=request_id,
            occurred_at=now,
            request_id=request_id,
            model=self.model,
            lane="master",
            data={"uri": key, "digest": digest_of_file(path)},
            file=UploadedFile(name="tickets.jsonl"),
            reason="new product line",
        )

    async def publish(self, topic: str, event: TrainingRequested | BatchReady) -> None:
        producer = KafkaProducer(self.broker)
        await producer.start()
        try:
            await publish(producer, topic, self.model, event, "/test")
        finally:
            await producer.stop()

    async def batches(self) -> list[BatchReady]:
        """The announced batches that were made of requests."""
        events = [
            decode(record.value, record.headers, BatchReady).event
            async for record in read(self.broker, TRAINING_BATCHES, 1)
            if record.key == self.model.encode()
        ]
        return [event for event in events if event.lane == "master"]

    async def answers(self, request_id: str) -> list[TrainingRequestAnswered]:
        events = [
            decode(record.value, record.headers, TrainingRequestAnswered).event
            async for record in read(self.broker, TRAINING_ANSWERS, 1)
            if record.key == self.model.encode()
        ]
        return [event for event in events if event.request_id == request_id]

    async def final_answer(self, request_id: str) -> TrainingRequestAnswered:
        for _ in range(60):
            for answer in await self.answers(request_id):
                if answer.state != "building":
                    return answer
        raise AssertionError(f"{request_id} was not answered")

    async def wait_for_answers(self, request_id: str, count: int) -> None:
        for _ in range(60):
            if len(await self.answers(request_id)) >= count:
                return
        raise AssertionError(f"{request_id} had no {count} answers")


async def test_killed_builder_announces_one_batch(broker: str, tmp_path: Path) -> None:
    builder = Builder(broker, tmp_path)
    request = builder.request("r1", 30)
    await builder.publish(TRAINING_REQUESTS, request)
    process = builder.process("dataset.data_written=stall:60")
    await process.start()
    await builder.wait_for_answers("r1", 2)  # the worker writes the dataset
    process.kill()
    assert await builder.batches() == []
    for failpoint in ("builder.recorded", "builder.announced"):
        process = builder.process(f"{failpoint}=kill")
        process.launch()
        assert await process.wait_for_exit() == -9, process.log
        # A batch of feedback, which a new attempt would have put before the batch of the request.
        await builder.publish(TRAINING_BATCHES, feedback_batch(request, failpoint))
    process = builder.process()
    await process.start()
    # The next request of the model comes after the first one.
    await builder.publish(TRAINING_REQUESTS, builder.request("r2", 1))
    refused = await builder.final_answer("r2")
    assert refused.state == "refused"
    assert "needs 3 (curation.smallest_batch)" in refused.detail
    announced = await builder.final_answer("r1")
    batches = await builder.batches()
    assert {batch.batch_id for batch in batches} == {announced.batch_id}
    assert batches[0] == batches[-1]
    assert batches[0].counts == announced.counts
    # Both files are deleted.
    assert builder.store.list_keys("uploads") == []
    await asyncio.to_thread(process.stop)


def feedback_batch(request: TrainingRequested, name: str) -> BatchReady:
    return BatchReady(
        event_id=f"{request.model}-{name}",
        occurred_at=request.occurred_at,
        model=request.model,
        model_digest=request.data.digest,
        batch_id=f"{request.model}-{name}",
        shard=0,
        number=7,
        lane="adaptive",
        manifest=request.data,
        counts=BatchCounts(training=50, preference=0, negative=0, held_out=5),
        offsets=(),
    )
