"""`ratchet forget` with the feedback, dataset and registry services on a real broker, and without
them.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from ratchet.erasure.report import advice
from ratchet.erasure.request import WithdrawalProgress
from ratchet.local_stack.ports import free_port
from services.dataset.snapshot.withdrawal_marks import read_mark
from services.trainer.data.training_set import read_batches, select_examples
from shared.config.model_file import ModelFile
from shared.config.models import load_model
from shared.events import BatchReady, ExamplesWithdrawn, Position, WithdrawnBatch
from shared.messaging.codec import decode, encode
from shared.messaging.topics import (
    DATASET_ENTRIES,
    DATASET_WITHDRAWALS,
    FEEDBACK_RECEIVED,
    TRAINING_BATCHES,
    TRAINING_CHECKPOINTS,
)
from shared.storage.dataset_entries import TableState
from shared.storage.object_store import FsspecStore
from shared.storage.snapshots import EXAMPLE_KINDS, read_examples, read_manifest
from tests.support.registry_events import checkpoint
from tests.support.scored_feedback import START, words
from tests.support.service_process import ServiceProcess, read, send

REPORT: dict[str, Any] = {
    "model": "m",
    "unread": [],
    "versions": ["v2"],
    "champion": "v2",
    "without": "v1",
}


def withdrawn_event(shard: int, partition: int, **fields: Any) -> ExamplesWithdrawn:
    fields_of_event = {
        "event_id": "x",
        "occurred_at": START,
        "model": "m",
        "shard": shard,
        "user": "u",
        "forgotten": "f",
        "waiting": 1,
        "batches": (),
    }
    return ExamplesWithdrawn.model_validate(
        fields_of_event | {"received": Position(topic="t", partition=partition, offset=0)} | fields
    )


def test_progress_waits_for_each_part_shard_and_partition() -> None:
    answers = WithdrawalProgress("f", {("m", 0, 0), ("m", 0, 1), ("m", 1, 0)})
    batches = [
        (WithdrawnBatch(batch_id=f"b{number}", number=number, feedback_ids=("e", f"e{number}")),)
        for number in range(2)
    ]
    answers.add(withdrawn_event(0, 0, forgotten="another"))
    answers.add(withdrawn_event(0, 0, batches=batches[0], part=0, parts=2))
    answers.add(withdrawn_event(0, 1))
    assert answers.missing == [("m", 0, 0), ("m", 1, 0)]
    for _ in range(2):
        answers.add(withdrawn_event(0, 0, batches=batches[1], part=1, parts=2, unread=("gone",)))
    answers.add(withdrawn_event(1, 0))
    assert (answers.missing, answers.event_count("m")) == ([], 4)
    assert answers.summary("m") == {
        "model": "m",
        "waiting": 3,
        "batches": 2,
        "examples": 3,
        "unread": ["gone"],
    }


def test_advice_names_the_next_step() -> None:
    assert "ratchet rollback m --to v1" in advice(REPORT)[0]
    assert "nothing else to do" in advice(REPORT | {"champion": "v1"})[0]
    unread, unknown = advice(REPORT | {"unread": ["gone"], "unknown": "away"})
    assert "gone" in unread
    assert "away" in unknown


class Stack:
    """Three services for one model, and the command line."""

    def __init__(self, broker: str, folder: Path) -> None:
        self.broker = broker
        self.model = f"m{uuid4().hex[:8]}"
        self.folder = folder
        (folder / "models").mkdir()
        path = folder / "models" / f"{self.model}.yaml"
        curation = "{batch_size: 4, examples_per_user: 2, user_share: 1.0, held_out_share: 0.0}"
        # Nothing is redacted: some of the random words look like telephone numbers.
        path.write_text(
            f"model: {self.model}\nbase: {{training: base, serving: base.gguf}}\nshards: "
            f"2\ncuration: {curation}\nredaction: {{kinds: []}}\n"
        )
        self.file: ModelFile = load_model(path)
        self.feedback = ServiceProcess(
            "feedback", broker, folder, RATCHET_FEEDBACK_GROUP=f"feedback-{self.model}"
        )
        self.dataset = ServiceProcess(
            "dataset", broker, folder, RATCHET_DATASET_GROUP=f"dataset-{self.model}"
        )
        registry = {
            "RATCHET_DATABASE": f"sqlite:///{folder}/registry.db",
            "RATCHET_MERGED": str(folder / "merged"),
        }
        self.registry = ServiceProcess("registry", broker, folder, **registry)
        self.store = FsspecStore(str(folder / "objects"))
        self.sent = 0

    def users(self, count: int) -> list[str]:
        """Return names of users whose feedback goes to the first shard."""
        names = (f"user{number}" for number in range(1000))
        return [name for name in names if self.file.shard_of(name, None, "") == 0][:count]

    async def send_feedback(self, users: Sequence[str]) -> None:
        """Send a thumbs-up of each user, on any partition."""
        records = []
        for user in users:
            self.sent += 1
            event = {
                "event_id": f"{self.model}-{user}-{self.sent}",
                "occurred_at": START.isoformat(),
                "model": self.model,
                "input": words(f"prompt {self.sent}"),
                "output": words(f"answer {self.sent}"),
                "feedback_type": "thumbs_up",
                "user_id": user,
            }
            records.append((f"conversation {self.sent}".encode(), json.dumps(event).encode(), ()))
        await send(self.broker, FEEDBACK_RECEIVED, records)

    async def pending(self, count: int) -> None:
        line = f'ratchet_dataset_pending_examples{{model="{self.model}",shard="0"}} {count}.0'
        await self.dataset.wait_until(lambda: line in self.dataset.metrics, f"waiting with {count}")

    async def batches(self, count: int) -> list[BatchReady]:
        batches: list[BatchReady] = []
        async with aclosing(read(self.broker, TRAINING_BATCHES)) as records:
            async for record in records:
                event = decode(record.value, record.headers, BatchReady).event
                batches += [event] if event.model == self.model else []
                if len(batches) == count:
                    break
        return batches

    async def version(self, batch: BatchReady) -> str:
        """Register a version for a batch, as the trainer would, and return its name."""
        base = self.get_json(f"/api/models/{self.model}")["champion"]
        saved = checkpoint(f"run of {self.model}", base, model=self.model).model_copy(
            update={"batch_id": batch.batch_id}
        )
        await send(
            self.broker, TRAINING_CHECKPOINTS, [(self.model.encode(), *encode(saved, "/test"))]
        )
        await self.registry.wait_until(
            lambda: self.get_json(f"/api/models/{self.model}")["champion"] != base, "promoting it"
        )
        return str(self.get_json(f"/api/models/{self.model}")["champion"])

    def get_json(self, path: str) -> Any:
        return httpx.get(f"http://127.0.0.1:{self.registry.port}{path}").json()

    def forget(
        self, user: str, *more: str, registry: int | None = None
    ) -> subprocess.CompletedProcess[str]:
        url = f"http://127.0.0.1:{registry or self.registry.port}"
        options = ("--user", user, "--model", self.model, "--yes", "--registry", url, *more)
        environment = os.environ | {
            "RATCHET_BOOTSTRAP_SERVERS": self.broker,
            "RATCHET_MODELS": str(self.folder / "models"),
            "COLUMNS": "200",
        }
        command = (sys.executable, "-m", "ratchet", "forget", *options)
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=90, check=False
        )


@pytest.mark.kafka
@pytest.mark.timeout(240)
async def test_examples_of_a_forgotten_user_are_withdrawn_everywhere(
    broker: str, tmp_path: Path
) -> None:
    stack = Stack(broker, tmp_path)
    ann, bob, cleo = stack.users(3)
    services = (stack.feedback, stack.dataset, stack.registry)
    await asyncio.gather(*(service.start() for service in services))
    try:
        await stack.send_feedback([ann, bob] * 5)
        batches = await stack.batches(2)
        await stack.pending(2)
        base = stack.get_json(f"/api/models/{stack.model}")["champion"]
        version = await stack.version(batches[1])

        result = stack.forget(ann, "--reason", "asked by letter", "--json")
        assert result.returncode == 0, result.stderr
        (report,) = json.loads(result.stdout)["models"]
        assert report == {
            "model": stack.model,
            "waiting": 1,
            "batches": 2,
            "examples": 4,
            "unread": [],
            "versions": [version],
            "champion": version,
            "without": base,
        }
        await stack.pending(1)
        listed = {
            item["version"]: item["withdrawn_examples"]
            for item in stack.get_json(f"/api/models/{stack.model}/versions")["items"]
        }
        assert listed == {base: 0, version: 2}
        assert stack.get_json(f"/api/models/{stack.model}/history")["items"][0]["reason"].endswith(
            "asked by letter"
        )

        shown = stack.forget(ann, registry=free_port())
        assert shown.returncode == 0, shown.stderr
        assert "unknown" in shown.stdout
        assert "does not answer" in shown.stdout

        await stack.send_feedback([bob, cleo, cleo])
        last = (await stack.batches(3))[-1]
        await stack.send_feedback([ann])
        await stack.pending(1)
        await assert_entries_removed(stack, ann)
    finally:
        statuses = [service.stop() for service in services]
    assert statuses == [0, 0, 0], [service.log for service in services]

    manifests = [read_manifest(stack.store, batch.manifest) for batch in (*batches, last)]
    assert not [name for name in manifests[2].feedback_ids if f"-{ann}-" in name]
    anns = [
        {name for name in manifest.feedback_ids if f"-{ann}-" in name} for manifest in manifests
    ]
    marks = [read_mark(stack.store, batch.manifest) for batch in (*batches, last)]
    assert [set(mark.feedback_ids) if mark else set() for mark in marks] == anns
    withdrawn = {
        name
        for event in await withdrawn_events(stack)
        for batch in event.batches
        for name in batch.feedback_ids
    }
    assert withdrawn == anns[0] | anns[1]
    history = read_batches(stack.store, last.manifest)
    chosen = select_examples(
        history,
        (),
        (),
        withdrawn=withdrawn,
        training_set=500,
        replay=100,
        replay_window=100,
        held_out_newest=10,
    )
    prompts = {
        example.messages: example.user_id
        for manifest in manifests
        for kind in EXAMPLE_KINDS
        for example in read_examples(stack.store, manifest, kind)
    }
    assert {prompts[sample.messages] for sample in (*chosen.new, *chosen.replayed)} == {bob, cleo}
    assert len(chosen.replayed) == 4


@pytest.mark.kafka
def test_without_services_the_request_stays_on_the_bus(broker: str, tmp_path: Path) -> None:
    stack = Stack(broker, tmp_path)
    result = stack.forget("zoe", "--timeout", "1")
    assert result.returncode == 1
    assert f"{stack.model}#0, {stack.model}#1" in result.stderr
    assert "the request is on the bus and takes effect" in result.stderr.replace("\n", " ")
    assert stack.forget("zoe", "--model", "other").returncode == 1


async def withdrawn_events(stack: Stack) -> list[ExamplesWithdrawn]:
    async with aclosing(read(stack.broker, DATASET_WITHDRAWALS, seconds=2)) as records:
        events = [
            decode(record.value, record.headers, ExamplesWithdrawn).event
            async for record in records
        ]
    return [event for event in events if event.model == stack.model]


async def assert_entries_removed(stack: Stack, user: str) -> None:
    """In the table, only the user's feedback after the withdrawal names the user."""
    newest: dict[bytes, bytes] = {}
    async with aclosing(read(stack.broker, DATASET_ENTRIES, seconds=2)) as records:
        async for record in records:
            if (record.key or b"").startswith(stack.model.encode()):
                newest[record.key or b""] = record.value or b""
    entries = TableState.from_records(newest.items()).entries
    naming = [entry.feedback_id for entry in entries if entry.influence == f"user:{user}"]
    assert naming == [f"{stack.model}-{user}-{stack.sent}"]
    assert [entry.reason for entry in entries if entry.revoked is not None] == ["withdrawn"]
