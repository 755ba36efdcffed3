import json
from contextlib import aclosing
from pathlib import Path
from uuid import uuid4

import pytest
from typer.testing import CliRunner, Result

from ratchet.cli.commands import app
from ratchet.dataset.verifying import verify_batches
from shared.events import BatchReady, FeedbackScored, WaitingReported
from shared.messaging.codec import decode, encode
from shared.messaging.topics import (
    DATASET_ENTRIES,
    DATASET_WAITING,
    FEEDBACK_SCORED,
    TRAINING_BATCHES,
    dead_letter_topic,
)
from shared.storage.dataset_entries import DatasetEntry, TableState
from shared.storage.object_store import FsspecStore
from shared.storage.snapshots import read_examples, read_manifest
from tests.support.scored_feedback import SimulatedShard, model_file, scored
from tests.support.service_process import Headers, ServiceProcess, read, send

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]


def service(broker: str, folder: Path, model: str) -> ServiceProcess:
    (folder / "models").mkdir()
    (folder / "models" / f"{model}.yaml").write_text(
        f"model: {model}\nbase: {{training: base, serving: base.gguf}}\n"
    )
    return ServiceProcess("dataset", broker, folder, RATCHET_DATASET_GROUP=f"dataset-{model}")


def records(
    events: list[FeedbackScored], model: str
) -> list[tuple[bytes | None, bytes | None, Headers]]:
    return [(model.encode(), *encode(event, "/test")) for event in events]


def events_of(model: str, count: int) -> list[FeedbackScored]:
    """Events of twelve users. Every 8th is a correction, every 11th a thumbs down, and after every
    13th an earlier one is sent again.
    """
    events = [
        scored(
            f"{model}-{number}",
            "thumbs_down" if number % 11 == 0 else "correction" if number % 8 == 0 else "thumbs_up",
            -1.0 if number % 11 == 0 else 1.0,
            model=model,
            user_id=f"user{number % 12}",
        )
        for number in range(count)
    ]
    return [
        event
        for at in range(count)
        for event in ([events[at], events[at - 5]] if at % 13 == 12 else [events[at]])
    ]


async def batches_of(broker: str, model: str, count: int) -> list[BatchReady]:
    """First `count` batches of a model. Repeated announcements must be equal."""
    batches: dict[int, BatchReady] = {}
    async with aclosing(read(broker, TRAINING_BATCHES)) as announced:
        async for record in announced:
            event = decode(record.value, record.headers, BatchReady).event
            if event.model == model:
                assert batches.setdefault(event.number, event) == event
            if len(batches) == count:
                break
    assert list(batches) == list(range(count))
    return list(batches.values())


async def entries_of(broker: str, model: str) -> dict[str, DatasetEntry]:
    """Newest entry of each event of a model in the changelog."""
    values: dict[bytes, bytes] = {}
    async with aclosing(read(broker, DATASET_ENTRIES, seconds=2)) as changes:
        async for record in changes:
            assert record.key is not None
            if record.key.startswith(f"{model}#".encode()):
                assert record.value is not None
                values[record.key] = record.value
    return {entry.key: entry for entry in TableState.from_records(values.items()).entries}


def expected(model: str, events: list[FeedbackScored]) -> SimulatedShard:
    world = SimulatedShard(model_file(model))
    for offset, event in enumerate(events):
        world.decide(event, offset)
    return world


async def test_examples_over_the_limits_on_users_are_shown(broker: str, tmp_path: Path) -> None:
    model = f"m{uuid4().hex[:8]}"
    running = service(broker, tmp_path, model)
    file = tmp_path / "models" / f"{model}.yaml"
    file.write_text(file.read_text() + "curation: {held_out_share: 0}\n")
    events = [
        scored(f"{model}-{number}", "correction", model=model, user_id=f"user{number % 3}")
        for number in range(24)
    ]

    def waiting(*options: str) -> Result:
        where = ("--bootstrap-servers", broker, "--models", str(tmp_path / "models"))
        return CliRunner().invoke(app, ["dataset", "waiting", *options, *where])

    await running.start()
    try:
        await send(broker, FEEDBACK_SCORED, records(events, model))
        await running.wait_until(
            lambda: f'pending_examples{{model="{model}",shard="0"}} 24.0' in running.metrics,
            "holding 24 examples",
        )
        await wait_for_report(broker, model, usable=15)
    finally:
        running.stop()
    shown = waiting(model)
    assert shown.exit_code == 0
    assert (
        f"{model}: 50 needed: 15 usable, 9 held back by examples_per_user (3 users); closes "
        "with 35 more\n" in shown.output
    )
    assert "curation.trusted_users" in shown.output
    (shard,) = json.loads(waiting(model, "--json").output)["shards"]
    assert (shard["usable"], shard["held_back"]) == (
        15,
        [{"limit": "examples_per_user", "examples": 9, "sources": 3}],
    )
    assert waiting("other").exit_code == 2


async def wait_for_report(broker: str, model: str, usable: int) -> None:
    async with aclosing(read(broker, DATASET_WAITING)) as found:
        async for record in found:
            report = decode(record.value, record.headers, WaitingReported).event
            if (report.model, report.status.usable) == (model, usable):
                assert record.key == model.encode()
                return
    raise AssertionError(f"no report of {usable} usable examples of {model}")


async def test_events_become_batches_of_50_with_valid_manifests(
    broker: str, tmp_path: Path
) -> None:
    model = f"m{uuid4().hex[:8]}"
    running = service(broker, tmp_path, model)
    events = events_of(model, 160)
    world = expected(model, events)
    assert len(world.batches) == 2
    await running.start()
    try:
        await send(
            broker,
            FEEDBACK_SCORED,
            [*records(events, model), (model.encode(), b"{}", [("key", b"kept")])],
        )
        batches = await batches_of(broker, model, 2)
        await running.wait_until(
            lambda: f'reason="duplicate"}} {world.duplicates}' in running.metrics.replace(".0", ""),
            "counting duplicates",
        )
        async with aclosing(read(broker, dead_letter_topic(FEEDBACK_SCORED))) as letters:
            letter = await anext(letter async for letter in letters if letter.key == model.encode())
        assert (letter.value, letter.headers[0]) == (b"{}", ("key", b"kept"))
        assert "ratchet_dead_letters_total{" in running.metrics
    finally:
        status = running.stop()
    assert status == 0, running.log
    store = FsspecStore(str(tmp_path / "objects"))
    previous = None
    for number, batch in enumerate(batches):
        manifest = read_manifest(store, batch.manifest)
        examples = {
            kind: read_examples(store, manifest, kind)
            for kind in ("training", "preference", "negative", "held_out")
        }
        assert (batch.number, batch.counts, batch.offsets) == (
            number,
            manifest.counts,
            manifest.offsets,
        )
        assert {
            kind: len(lines) for kind, lines in examples.items()
        } == manifest.counts.model_dump()
        assert len(examples["training"]) == 50
        assert manifest.feedback_ids == world.batches[number]
        assert [example.feedback_id for example in examples["training"]] == world.training_members(
            number
        )
        assert manifest.previous == previous
        previous = batch.manifest
    assert verify_batches(store, batches[-1].manifest, batches[-1], whole_chain=True).faults == ()


async def test_kill_9_changes_no_batch_and_loses_no_event(broker: str, tmp_path: Path) -> None:
    model = f"m{uuid4().hex[:8]}"
    running = service(broker, tmp_path, model)
    events = events_of(model, 800)
    world = expected(model, events)
    label = f'model="{model}",shard="0"'
    await running.start()
    try:
        await send(broker, FEEDBACK_SCORED, records(events, model))
        await batches_of(broker, model, 2)
        running.kill()
        assert running.log.count("batch closed") < len(world.batches), (
            "killed too late to show anything"
        )
        await running.start()
        announced = await batches_of(broker, model, len(world.batches))
        await running.wait_until(
            lambda: f"pending_examples{{{label}}} {world.pending}.0" in running.metrics,
            "at the end of the log",
        )
    finally:
        status = running.stop()
    assert status == 0, running.log
    store = FsspecStore(str(tmp_path / "objects"))
    assert {
        batch.number: read_manifest(store, batch.manifest).feedback_ids for batch in announced
    } == world.batches
    entries = await entries_of(broker, model)
    assert entries.keys() == world.entries.keys()
    for key, entry in entries.items():
        alike = world.entries[key]
        assert (entry.decision, entry.reason, entry.is_waiting) == (
            alike.decision,
            alike.reason,
            alike.is_waiting,
        )
        assert (entry.batch and (entry.batch.number, entry.batch.place)) == (
            alike.batch and (alike.batch.number, alike.batch.place)
        )


async def test_overdue_batch_closes_without_another_event(broker: str, tmp_path: Path) -> None:
    model = f"m{uuid4().hex[:8]}"
    running = service(broker, tmp_path, model)
    with (tmp_path / "models" / f"{model}.yaml").open("a") as file:
        file.write("curation: {longest_wait_hours: 0.002, smallest_batch: 3, held_out_share: 0}\n")
    await running.start()
    try:
        await send(
            broker,
            FEEDBACK_SCORED,
            records([scored(f"{model}-{number}", model=model) for number in range(3)], model),
        )
        (batch,) = await batches_of(broker, model, 1)
    finally:
        status = running.stop()
    assert status == 0, running.log
    assert batch.counts.training == 3
