"""A broker of its own, both services as processes that die and come back, what is sent to them, and
what became of it.
"""

import asyncio
import signal
from pathlib import Path

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from ratchet.kafka_admin.topics import apply_topics, wait_for_group_coordinator
from ratchet.local_stack.broker import Broker
from ratchet.local_stack.ports import free_port
from ratchet.reconciliation import TOPICS_NEEDED, Reconciliation, reconcile
from shared.clock import SystemClock
from shared.failpoints import Service as Name
from shared.kafka.end_offsets import EndOffsets
from shared.kafka.topic_reader import KafkaTopicReader
from shared.messaging.topics import FEEDBACK_RECEIVED, FEEDBACK_SCORED, TOPICS
from shared.storage.object_store import FsspecStore
from shared.storage.snapshots import read_manifest
from tests.chaos.load import MODEL, MODEL_FILE, Load
from tests.dataset.running import ServiceProcess

SOURCES: dict[Name, str] = {"feedback": FEEDBACK_RECEIVED, "dataset": FEEDBACK_SCORED}
_PARTITIONS = {topic.name: topic.partitions for topic in TOPICS}


class Worker(ServiceProcess):
    """A process of one of the services that are under test."""

    def __init__(
        self, service: Name, bootstrap_servers: str, folder: Path, **settings: str
    ) -> None:
        super().__init__(service, bootstrap_servers, folder, **settings)
        self.service = service


class World:
    """All that is there for a run of faults. `workers` are the processes that are meant to be
    there.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.broker = Broker(folder / "kafka", free_port(), free_port(), SystemClock())
        self.load = Load(seed)
        self.workers: list[Worker] = []
        self.accepted: set[tuple[int, int]] = set()
        self.kills = 0
        (folder / "models").mkdir(parents=True)
        self._model_file = folder / "models" / f"{MODEL}.yaml"
        self._model_file.write_text(MODEL_FILE)

    def open(self) -> None:
        self.broker.start()
        asyncio.run(apply_topics(self.broker.bootstrap_servers))
        asyncio.run(wait_for_group_coordinator(self.broker.bootstrap_servers))

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()
        self.broker.stop()

    def declare(self, model_file: str) -> str:
        """Change the model file, for workers that start from now on; returns what it was."""
        before = self._model_file.read_text()
        self._model_file.write_text(model_file)
        return before

    def launch(self, name: Name, failpoints: str = "", **settings: str) -> Worker:
        """Start a worker and do not wait for it."""
        ordered = {"RATCHET_FAILPOINTS": failpoints} if failpoints else {}
        worker = Worker(name, self.broker.bootstrap_servers, self.folder, **settings | ordered)
        worker.launch()
        self.workers.append(worker)
        return worker

    async def start(self, name: Name, failpoints: str = "", **settings: str) -> Worker:
        """Start a worker and wait until it is ready."""
        worker = self.launch(name, failpoints, **settings)
        await worker.wait_until(worker.is_ready, "ready", 60)
        return worker

    def stop(self, worker: Worker) -> None:
        """Ask a worker to end and wait until it has."""
        self.workers.remove(worker)
        status = worker.stop(20)
        # Python ends by the signal as long as the service has not begun.
        assert status == 0 or (status == -signal.SIGTERM and not worker.log), worker.log[-4000:]

    def kill(self, worker: Worker) -> None:
        self.workers.remove(worker)
        worker.kill()
        self.kills += 1

    async def died(self, worker: Worker, seconds: float = 60) -> int:
        """The status that a worker ends with by itself; it is not started again."""
        assert worker.process is not None
        status = await asyncio.wait_for(asyncio.to_thread(worker.process.wait), seconds)
        self.workers.remove(worker)
        return status

    async def send(self, count: int, seconds: float = 0) -> None:
        """Send the next records of the load, spread over some seconds; all are accepted when it
        returns.
        """
        producer = AIOKafkaProducer(
            bootstrap_servers=self.broker.bootstrap_servers,
            enable_idempotence=True,
            request_timeout_ms=90_000,
        )
        await producer.start()
        try:
            on_their_way = []
            for key, value, headers in self.load.take(count):
                on_their_way.append(
                    await producer.send(FEEDBACK_RECEIVED, value, key, headers=list(headers))
                )
                await asyncio.sleep(seconds / count)
            for sent in on_their_way:
                said = await sent
                self.accepted.add((said.partition, said.offset))
        finally:
            await producer.stop()

    async def settle(self, seconds: float = 90) -> None:
        """Wait until nothing is left to do, as what starts services would: what ends by itself is
        started again.
        """
        end = asyncio.get_running_loop().time() + seconds
        for name in ("feedback", "dataset"):
            while await self._behind(name):
                assert asyncio.get_running_loop().time() < end, f"{name} is not done\n" + "\n".join(
                    w.log[-4000:] for w in self.workers
                )
                self.restart_the_dead()
                await asyncio.sleep(0.3)

    async def reconciled(self) -> Reconciliation:
        """What became of everything, seen from outside. Asserts that the broker has all that it
        acknowledged.
        """
        store = FsspecStore(str(self.folder / "objects"))
        reader = KafkaTopicReader(self.broker.bootstrap_servers, TOPICS_NEEDED)
        await reader.start()
        try:
            records = await reader.read_new()
        finally:
            await reader.stop()
        received = {
            (record.partition, record.offset)
            for record in records
            if record.topic == FEEDBACK_RECEIVED
        }
        assert self.accepted <= received, "the broker lost what it had acknowledged"
        return reconcile(records, lambda artefact: read_manifest(store, artefact))

    async def nothing_lost_or_doubled(self, *, once_more: bool = True) -> Reconciliation:
        """Let everything be used up; `once_more` recover from what is there and form further
        batches; then reconcile.
        """
        await self.settle()
        if once_more:
            for worker in self.of("dataset"):
                self.stop(worker)
            self.launch("dataset")
            await self.send(40)
            await self.settle()
        found = await self.reconciled()
        assert (found.lost, found.duplicated) == ((), ())
        assert {fate.state for fate in found.outcomes.values()} == {
            "dead_letter",
            "dropped",
            "waiting",
            "member",
        }
        return found

    def of(self, name: Name) -> list[Worker]:
        """The workers of a service."""
        return [worker for worker in self.workers if worker.service == name]

    def restart_the_dead(self) -> None:
        """In the place of each worker that ended by itself, start one without failpoints."""
        for worker in list(self.workers):
            if worker.process is not None and worker.process.poll() is not None:
                self.kills += worker.process.returncode == -signal.SIGKILL
                self.workers.remove(worker)
                self.launch(worker.service)

    async def _behind(self, name: Name) -> bool:
        """Whether the group of a service has records before it that are not committed."""
        topic = SOURCES[name]
        admin = AIOKafkaAdminClient(bootstrap_servers=self.broker.bootstrap_servers)
        ends = EndOffsets(self.broker.bootstrap_servers)
        await admin.start()
        await ends.start()
        try:
            committed = await admin.list_consumer_group_offsets(f"ratchet-{name}")
            places = {(place.topic, place.partition): at.offset for place, at in committed.items()}
            return bool(
                await ends.lag(
                    {
                        (topic, number): places.get((topic, number))
                        for number in range(_PARTITIONS[topic])
                    }
                )
            )
        finally:
            await ends.stop()
            await admin.close()
