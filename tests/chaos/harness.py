"""Test harness for faults: a separate broker, both stream services as processes that are killed and
restarted, the load sent to them, and the check of its outcome.
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
from tests.support.service_process import ServiceProcess

SOURCES: dict[Name, str] = {"feedback": FEEDBACK_RECEIVED, "dataset": FEEDBACK_SCORED}
_PARTITIONS = {topic.name: topic.partitions for topic in TOPICS}


class Worker(ServiceProcess):
    """A process of a service under test."""

    def __init__(
        self, service: Name, bootstrap_servers: str, folder: Path, **settings: str
    ) -> None:
        super().__init__(service, bootstrap_servers, folder, **settings)
        self.service = service


class ChaosHarness:
    """Broker, load and workers of a fault test. `workers` should be running."""

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

    def replace_model_file(self, model_file: str) -> str:
        """Replace the model file for workers that start later; return the previous content."""
        previous = self._model_file.read_text()
        self._model_file.write_text(model_file)
        return previous

    def launch(self, name: Name, failpoints: str = "", **settings: str) -> Worker:
        """Start a worker without waiting for it."""
        failpoint_settings = {"RATCHET_FAILPOINTS": failpoints} if failpoints else {}
        worker = Worker(
            name, self.broker.bootstrap_servers, self.folder, **settings | failpoint_settings
        )
        worker.launch()
        self.workers.append(worker)
        return worker

    async def start(self, name: Name, failpoints: str = "", **settings: str) -> Worker:
        """Start a worker and wait until it is ready."""
        worker = self.launch(name, failpoints, **settings)
        await worker.wait_until(worker.is_ready, "ready", 60)
        return worker

    def stop(self, worker: Worker) -> None:
        """Stop a worker with SIGTERM and wait until it exits."""
        self.workers.remove(worker)
        status = worker.stop(20)
        # Before the service installs its handler, Python exits by the signal.
        assert status == 0 or (status == -signal.SIGTERM and not worker.log), worker.log[-4000:]

    def kill(self, worker: Worker) -> None:
        self.workers.remove(worker)
        worker.kill()
        self.kills += 1

    async def wait_for_exit(self, worker: Worker, seconds: float = 60) -> int:
        """Wait until a worker exits; return its status. It is not restarted."""
        assert worker.process is not None
        status = await asyncio.wait_for(asyncio.to_thread(worker.process.wait), seconds)
        self.workers.remove(worker)
        return status

    async def send(self, count: int, seconds: float = 0) -> None:
        """Send the next records of the load over `seconds`; all are acknowledged on return."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self.broker.bootstrap_servers,
            enable_idempotence=True,
            request_timeout_ms=90_000,
        )
        await producer.start()
        try:
            deliveries = []
            for key, value, headers in self.load.take(count):
                deliveries.append(
                    await producer.send(FEEDBACK_RECEIVED, value, key, headers=list(headers))
                )
                await asyncio.sleep(seconds / count)
            for delivery in deliveries:
                metadata = await delivery
                self.accepted.add((metadata.partition, metadata.offset))
        finally:
            await producer.stop()

    async def settle(self, seconds: float = 90) -> None:
        """Wait until every record is processed; restart workers that exit meanwhile, like a
        supervisor.
        """
        end = asyncio.get_running_loop().time() + seconds
        for name in ("feedback", "dataset"):
            while await self._has_lag(name):
                assert asyncio.get_running_loop().time() < end, (
                    f"{name} has unprocessed records\n"
                    + "\n".join(w.log[-4000:] for w in self.workers)
                )
                self.restart_exited_workers()
                await asyncio.sleep(0.3)

    async def reconciled(self) -> Reconciliation:
        """Reconcile all topics and snapshots. Asserts that the broker has every acknowledged
        record.
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
        assert self.accepted <= received, "the broker lost acknowledged records"
        return reconcile(records, lambda artefact: read_manifest(store, artefact))

    async def assert_exactly_once(self, *, recover: bool = True) -> Reconciliation:
        """Wait until every record is processed, then assert that none is lost or duplicated.

        With `recover`, first restart the dataset service, which recovers its state, and let it form
        further batches.
        """
        await self.settle()
        if recover:
            for worker in self.workers_of("dataset"):
                self.stop(worker)
            self.launch("dataset")
            await self.send(40)
            await self.settle()
        reconciliation = await self.reconciled()
        assert (reconciliation.lost, reconciliation.duplicated) == ((), ())
        assert {outcome.state for outcome in reconciliation.outcomes.values()} == {
            "dead_letter",
            "dropped",
            "waiting",
            "member",
        }
        return reconciliation

    def workers_of(self, name: Name) -> list[Worker]:
        """Return the workers of a service."""
        return [worker for worker in self.workers if worker.service == name]

    def restart_exited_workers(self) -> None:
        """Replace each worker that exited by one without failpoints."""
        for worker in list(self.workers):
            if worker.process is not None and worker.process.poll() is not None:
                self.kills += worker.process.returncode == -signal.SIGKILL
                self.workers.remove(worker)
                self.launch(worker.service)

    async def _has_lag(self, name: Name) -> bool:
        """Return True if the group of a service has uncommitted records."""
        topic = SOURCES[name]
        admin = AIOKafkaAdminClient(bootstrap_servers=self.broker.bootstrap_servers)
        ends = EndOffsets(self.broker.bootstrap_servers)
        await admin.start()
        await ends.start()
        try:
            committed = await admin.list_consumer_group_offsets(f"ratchet-{name}")
            offsets = {
                (partition.topic, partition.partition): metadata.offset
                for partition, metadata in committed.items()
            }
            return bool(
                await ends.lag(
                    {
                        (topic, number): offsets.get((topic, number))
                        for number in range(_PARTITIONS[topic])
                    }
                )
            )
        finally:
            await ends.stop()
            await admin.close()
