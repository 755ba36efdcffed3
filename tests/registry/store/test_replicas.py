"""Two registries on one PostgreSQL and one Kafka broker: one deploys and one publishes, and the
other takes over when it is killed.
"""

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import select

from services.registry.store.database import Database
from services.registry.store.queries import aliases_of
from services.registry.store.tables import DeploymentRow, LeaseRow, OutboxRow
from shared.events import DeploymentFailed, VersionDeployed, VersionPromoted, VersionRegistered
from shared.kafka.client import KafkaProducer
from shared.messaging.bus import publish
from shared.messaging.codec import decode
from shared.messaging.topics import MODELS_VERSIONS, TRAINING_CHECKPOINTS
from tests.support.registry_events import checkpoint
from tests.support.service_process import read

pytestmark = pytest.mark.kafka


class Pair:
    """Two replicas of a registry with one model."""

    def __init__(self, broker: str, url: str, folder: Path) -> None:
        self.broker = broker
        self.url = url
        self.folder = folder
        self.model = f"m{uuid4().hex[:8]}"
        self.database = Database(url)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, *names: str) -> None:
        for name in names:
            with (self.folder / f"{name}.log").open("wb") as log:
                command = [
                    sys.executable,
                    "-m",
                    "tests.registry.replica",
                    self.broker,
                    self.url,
                    str(self.folder),
                    name,
                    self.model,
                ]
                self.processes[name] = subprocess.Popen(command, stderr=log, stdout=log)

    def stop(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
        self.database.close()

    def log_lines(self, file: str) -> list[tuple[str, str]]:
        """Return pairs of replica and version from a file of the fake target."""
        path = self.folder / file
        lines = path.read_text().splitlines() if path.exists() else []
        return [(line.split()[0], line.split()[1]) for line in lines]

    @property
    def champion(self) -> str:
        row = self.database.run_sync(lambda session: aliases_of(session, self.model))
        assert row is not None
        return str(row.champion)

    def holder(self, lease: str) -> str | None:
        row = self.database.run_sync(lambda session: session.get(LeaseRow, lease))
        return row.holder if row else None

    async def until(
        self, condition: Callable[[], bool], description: str, seconds: float = 60
    ) -> None:
        for _ in range(int(seconds / 0.05)):
            if condition():
                return
            await asyncio.sleep(0.05)
        logs = "\n".join(
            (self.folder / f"{name}.log").read_text()[-3000:] for name in self.processes
        )
        raise AssertionError(f"not {description} in {seconds} s\n{logs}")

    def served(self, number: int) -> bool:

        switches = self.log_lines("switches")
        return (
            bool(switches)
            and switches[-1][1].startswith(f"v{number}_")
            and len(self.deployed) == number + 1
        )

    @property
    def deployed(self) -> list[str]:
        rows = (
            select(DeploymentRow.version)
            .where(DeploymentRow.state == "deployed")
            .order_by(DeploymentRow.id)
        )
        return self.database.run_sync(lambda session: list(session.scalars(rows)))


@pytest.fixture
def pair(broker: str, postgresql: Callable[[], str], tmp_path: Path) -> Iterator[Pair]:
    pair = Pair(broker, postgresql(), tmp_path)
    yield pair
    pair.stop()


@pytest.mark.timeout(240)
async def test_replica_takes_over_deployment_of_killed_one(
    pair: Pair,
) -> None:
    pair.database.migrate()
    pair.start("one", "two")
    producer = KafkaProducer(pair.broker)
    await producer.start()
    try:
        await pair.until(lambda: pair.served(0), "version 0 served")
        for number in (1, 2):
            await publish(
                producer,
                TRAINING_CHECKPOINTS,
                pair.model,
                checkpoint(f"r{number}", pair.champion, model=pair.model),
                "test",
            )
            await pair.until(lambda number=number: pair.served(number), f"version {number} served")  # type: ignore[misc]
        holder = pair.holder(f"deploy {pair.model}")
        assert holder in pair.processes
        (standby,) = set(pair.processes) - {holder}
        assert {replica for replica, _ in pair.log_lines("begins")} == {holder}, (
            "only the holder starts to deploy"
        )

        await publish(
            producer,
            TRAINING_CHECKPOINTS,
            pair.model,
            checkpoint("r3", pair.champion, model=pair.model),
            "test",
        )
        await pair.until(
            lambda: pair.log_lines("begins")[-1][1].startswith("v3_"), "version 3 begun"
        )
        pair.processes[holder].kill()
        await pair.until(lambda: pair.served(3), "version 3 served by the other")
        assert pair.log_lines("switches")[-1][0] == standby
        await publish(
            producer,
            TRAINING_CHECKPOINTS,
            pair.model,
            checkpoint("r4", pair.champion, model=pair.model),
            "test",
        )
        await pair.until(lambda: pair.served(4), "version 4 served by the other")
        await pair.until(lambda: not _waiting(pair), "outbox published")
    finally:
        await producer.stop()

    versions = [version.partition("_")[0] for _, version in pair.log_lines("switches")]
    assert versions == ["v0", "v1", "v2", "v3", "v4"]
    assert [version.partition("_")[0] for version in pair.deployed] == versions
    published = [
        decode(
            record.value,
            record.headers,
            VersionRegistered,
            VersionPromoted,
            VersionDeployed,
            DeploymentFailed,
        ).event.event_id
        async for record in read(pair.broker, MODELS_VERSIONS, seconds=3)
        if record.key == pair.model.encode()
    ]
    decided = pair.database.run_sync(
        lambda session: list(session.scalars(select(OutboxRow.event_id).order_by(OutboxRow.id)))
    )
    counts = Counter(published)
    assert list(dict.fromkeys(published)) == decided, "every event, in order"
    assert sum(counts.values()) - len(counts) <= 1, (
        "at most the event in flight at the kill is repeated"
    )


def _waiting(pair: Pair) -> bool:
    rows = select(OutboxRow.id).where(OutboxRow.published_at.is_(None)).limit(1)
    return pair.database.run_sync(lambda session: session.scalar(rows)) is not None
