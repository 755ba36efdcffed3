"""A complete registry as a process, for tests. Its target is a folder with a slow switch, and its
models are not merged.

`python -m tests.registry.replica BROKER DATABASE FOLDER NAME MODEL`. Its target writes a line `NAME
VERSION` for each switch, and holds a version for half a second between push and switch.
"""

import asyncio
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from services.registry.app import TOPICS, Registry
from services.registry.deploy.deployer import Deployer
from services.registry.deploy.deployment_runner import DeployPolicy
from services.registry.deploy.merged_models import MergedModels
from services.registry.deploy.targets.target import MergedModel, TargetState
from services.registry.deploy.verification import VerificationResult
from services.registry.store.database import Database, Session
from services.registry.store.outbox import OutboxPublisher
from services.registry.store.tables import VersionRow
from shared.clock import SystemClock
from shared.config.model_file import BasePaths, ModelFile
from shared.config.models import Models
from shared.events import Message
from shared.identity import digest_of
from shared.kafka.client import KafkaConsumer, KafkaProducer
from shared.logs import configure
from shared.observability.health import Health
from shared.observability.metrics import Metrics
from shared.service.consume import consume
from shared.service.runtime import Runtime

LEASE_SECONDS = 2.0
SWITCH_SECONDS = 0.5


class SlowFolder:
    """A target that all replicas share."""

    name = "folder"
    supports_canary = False

    def __init__(self, folder: Path, replica: str) -> None:
        self._folder, self._replica = folder, replica

    @property
    def _switches(self) -> list[str]:
        path = self._folder / "switches"
        return path.read_text().splitlines() if path.exists() else []

    def served_name(self, model: str) -> str:
        return model

    def served_name_of(self, model: str, version: str) -> str:
        return version

    async def answer(
        self, model: str, version: str, messages: Sequence[Message], max_tokens: int
    ) -> str:
        raise NotImplementedError

    async def inspect(self, model: str) -> TargetState:
        champion = self._switches[-1].split()[1] if self._switches else None
        return TargetState(
            champion,
            None,
            {path.stem: digest_of(path.read_bytes()) for path in self._folder.glob("*.pushed")},
        )

    async def push(self, build: MergedModel) -> None:
        (self._folder / f"{build.version}.pushed").write_text(build.version)

    async def verify(self, build: MergedModel) -> VerificationResult:
        self._say("begins", build.version)
        await asyncio.sleep(SWITCH_SECONDS)
        return VerificationResult(True, (), 0, 0, None)

    async def switch(self, model: str, version: str, previous: str | None) -> None:
        self._say("switches", version)

    async def set_challenger(self, model: str, version: str | None) -> None:
        pass

    async def remove(self, model: str, version: str) -> None:
        pass

    def _say(self, file: str, version: str) -> None:
        with (self._folder / file).open("a") as log_file:
            log_file.write(f"{self._replica} {version}\n")


class NamedMergedModels(MergedModels):
    """Merged models whose digest is that of the version's name."""

    def __init__(self, database: Database, folder: Path) -> None:
        self._database, self._folder = database, folder

    async def get(self, model: str, name: str) -> MergedModel:
        digest = digest_of(name.encode())
        await self._database.run(lambda session: _record(session, model, name, digest))
        return MergedModel(model, name, self._folder / name, digest)

    async def delete(self, model: str, name: str) -> None:
        pass

    async def versions_on_disk(self, model: str) -> Collection[str]:
        return ()


def _record(session: Session, model: str, name: str, digest: str) -> None:
    version = session.get(VersionRow, (model, name))
    assert version is not None
    version.merged_digest = digest


async def run(broker: str, url: str, folder: Path, name: str, model: str) -> None:
    clock, log, metrics = SystemClock(), configure("registry", "info", "text"), Metrics("registry")
    database = Database(url)
    await asyncio.to_thread(database.migrate)
    producer, consumer = KafkaProducer(broker), KafkaConsumer(broker, f"registry-{model}", TOPICS)
    await producer.start()
    await consumer.start()
    models = Models(
        {model: ModelFile(model=model, base=BasePaths(training="base", serving="base.gguf"))},
        folder,
    )
    publisher = OutboxPublisher(database, producer, clock, log, name, LEASE_SECONDS)
    merged_models = NamedMergedModels(database, folder)
    targets = {model: [SlowFolder(folder, name)]}
    policy = DeployPolicy(keep_versions=9, lease_seconds=LEASE_SECONDS)
    runtime = Runtime("registry", clock, log, metrics, Health(clock))
    deployer = Deployer(database, targets, merged_models, policy, runtime, name)
    registry = Registry(database, models, deployer, runtime)
    await registry.register_declared_models()
    following = consume(consumer.records(), registry.handle, consumer.commit, producer, runtime)
    await asyncio.gather(following, publisher.run(), deployer.run())


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4], sys.argv[5]))
