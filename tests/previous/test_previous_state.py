"""The present version reads what the previous one stored: events, snapshots, runs, versions."""

import json
import lzma
import tarfile
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ratchet.dataset.verifying import verify_batches
from services.registry.store.database import Database
from services.registry.store.queries import aliases_of, history_of, runs_of, version_of
from services.trainer.run_folder import TrainedRun, WorkFolder
from shared.config.models import load_model, load_models
from shared.events import BatchReady, CheckpointSaved
from shared.messaging.bus import Record
from shared.messaging.codec import decode
from shared.messaging.topics import TOPICS
from shared.storage.adapters import read_adapter
from shared.storage.dataset_entries import TableState
from shared.storage.object_store import FsspecStore
from shared.storage.snapshots import read_examples, read_manifest
from tests.support.scored_feedback import SimulatedShard, scored, words

PREVIOUS = Path(__file__).parent / "state_before_packages"
RUN, POISONED_RUN = "cdaeaa9b3c21f2e89a0925c08e00001b", "0663e5defc1b0ef296e070d334d8ff09"
EVENTS = {topic.name: topic.events for topic in TOPICS if topic.events}


@pytest.fixture(scope="module")
def records() -> list[Record]:
    lines = lzma.decompress((PREVIOUS / "records.jsonl.xz").read_bytes()).decode().splitlines()
    return [_record(json.loads(line)) for line in lines]


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("previous")
    with tarfile.open(PREVIOUS / "state.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


def test_every_event_on_every_topic_decodes(records: list[Record]) -> None:
    decoded = Counter(
        type(decode(record.value, record.headers, *EVENTS[record.topic]).event).__name__
        for record in records
        if record.topic in EVENTS and record.headers
    )
    assert decoded == {
        "FeedbackReceived": 136,
        "FeedbackScored": 136,
        "BatchReady": 2,
        "TrainingProgressed": 61,
        "CheckpointSaved": 2,
        "VersionRegistered": 3,
        "VersionPromoted": 3,
        "VersionDeployed": 2,
    }


def test_snapshots_are_whole_and_verified(records: list[Record], state: Path) -> None:
    store = FsspecStore(str(state / "objects"))
    for batch in _batches(records):
        manifest = read_manifest(store, batch.manifest)
        assert len(read_examples(store, manifest, "training")) == 50
    verified = verify_batches(store, _batches(records)[-1].manifest, whole_chain=True)
    assert (len(verified.batches), verified.faults) == (2, ())


def test_finished_runs_are_known_with_their_outcomes(state: Path) -> None:
    work = WorkFolder(state / "trainer")
    for run_id in (RUN, POISONED_RUN):
        folder = work.run(run_id)
        plan, outcome = folder.plan(), folder.outcome(1)
        assert plan is not None
        trained = (folder.path / "trained.json").read_bytes()
        assert TrainedRun.model_validate_json(trained).trained.steps > 0
        assert outcome is not None
        assert outcome.run_id == run_id


def test_the_registry_database_migrates_and_keeps_its_versions(state: Path) -> None:
    database = Database(f"sqlite:///{state / 'registry.db'}")
    database.migrate()
    try:
        with database.transaction() as session:
            aliases = aliases_of(session, "support")
            assert aliases is not None
            assert aliases.champion is not None
            champion = version_of(session, "support", aliases.champion)
            assert champion is not None
            assert (champion.number, champion.run_id) == (2, POISONED_RUN)
            assert {run.state for run in runs_of(session, "support", 10)} == {"promoted"}
            moves = [entry.action for entry in history_of(session, "support", 10)]
            assert moves == ["promote", "challenge", "promote", "challenge", "found"]
    finally:
        database.close()


def test_adapters_are_read_by_digest(records: list[Record], state: Path) -> None:
    store = FsspecStore(str(state / "objects"))
    artefacts = [
        decode(record.value, record.headers, CheckpointSaved).event.adapter
        for record in records
        if record.topic == "training.checkpoints"
    ]
    assert [len(read_adapter(store, artefact).files) for artefact in artefacts] == [2, 2]


def test_entries_of_the_dataset_service_are_read(records: list[Record]) -> None:
    table = TableState.from_records(
        (record.key, record.value)
        for record in records
        if record.topic == "dataset.entries" and record.key and record.value
    )
    assert [batch.number for batch in table.batches] == [0, 1]
    members = Counter(entry.batch.number for entry in table.entries if entry.batch)
    assert members == {0: 66, 1: 56}


def test_a_ledger_continues_from_entries_with_signatures(records: list[Record]) -> None:
    """Earlier versions stored MinHash signatures where texts are stored now. A ledger that is
    rebuilt later decides as one without a restart.
    """
    table = {
        record.key.decode(): record.value
        for record in records
        if record.topic == "dataset.entries" and record.key and record.value
    }
    file = load_model(PREVIOUS / "models" / "support.yaml")
    outcomes = []
    for restarts in (False, True):
        shard = SimulatedShard(file)
        shard.load(table)
        first = 1 + max(entry.source.offset for entry in shard.entries.values())
        now = max(entry.logged_at for entry in shard.entries.values())
        for offset in range(first, first + 140):
            name = f"e{(offset - first) % 120}"
            event = scored(f"n{offset}", input=words(name), output=words(f"answer {name}"))
            shard.decide(event, offset, now + timedelta(seconds=offset - first))
            if restarts and offset % 7 == 0:
                shard.restart()
        outcomes.append((shard.entries, shard.batches))
    assert outcomes[0] == outcomes[1]
    reasons = Counter(entry.reason for entry in outcomes[0][0].values())
    assert reasons["near_duplicate"] >= 20
    assert set(outcomes[0][1]) >= {2}


def test_old_keys_of_a_model_file_mean_what_the_new_ones_do() -> None:
    previous = load_model(PREVIOUS / "models" / "support.yaml")
    assert previous.gate.regression_set == "support/retention.jsonl"
    assert previous.gate.regression_prompts == "support/canaries.jsonl"
    models = load_models(PREVIOUS / "models")
    assert models.regression_set("support")
    assert models.regression_prompts("support")


def _record(line: dict[str, Any]) -> Record:
    return Record(
        line["topic"],
        line["partition"],
        line["offset"],
        line["key"].encode() if line["key"] else None,
        line["value"].encode() if line["value"] is not None else None,
        tuple((name, value.encode()) for name, value in line["headers"]),
    )


def _batches(records: list[Record]) -> list[BatchReady]:
    return [
        decode(record.value, record.headers, BatchReady).event
        for record in records
        if record.topic == "training.batches"
    ]
