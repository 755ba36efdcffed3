"""`ratchet train` on a real broker: a file becomes a batch, and a trainer judges a candidate."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from ratchet.dataset.lookup import read_announced_batches
from shared.events import BatchReady
from shared.kafka.announced_batches import newest_feedback_batch
from shared.storage.object_store import FsspecStore
from shared.storage.snapshots import read_manifest
from tests.support.imported_files import chat, write_jsonl
from tests.trainer.fleet import Fleet, make_base

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(900)]

MODEL_FILE = """\
model: {model}
base: {{training: tiny, serving: tiny/model.gguf}}
redaction: {{kinds: []}}
curation: {{smallest_batch: 3}}
lanes:
  adaptive: {{}}
  master:
    rehearsal: none
    training: {{batch_size: 8, epochs: 1, replay: 4, rank: 16, precision: fp32}}
"""


@pytest.fixture(scope="module")
def tiny(bases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases") / "tiny"
    make_base(bases / "smollm2-135m-instruct", folder)
    return folder


@pytest.fixture
def fleet(broker: str, tiny: Path, tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(broker, tiny, tmp_path, f"train-{uuid4().hex[:8]}")
    (tmp_path / "bases").symlink_to(tiny.parent)
    (tmp_path / "models" / f"{fleet.model}.yaml").write_text(MODEL_FILE.format(model=fleet.model))
    try:
        yield fleet
    finally:
        fleet.close()


def train(fleet: Fleet, *arguments: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of the command."""
    finished = subprocess.run(
        [sys.executable, "-m", "ratchet", "train", fleet.model, *arguments],
        env={
            **os.environ,
            "RATCHET_MODELS": str(fleet.folder / "models"),
            "RATCHET_OBJECT_STORE": str(fleet.folder / "objects"),
            "RATCHET_BASES": str(fleet.folder / "bases"),
            "RATCHET_BOOTSTRAP_SERVERS": fleet.bootstrap_servers,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    return finished.returncode, finished.stdout, finished.stderr


def announced(fleet: Fleet) -> list[BatchReady]:
    batches = asyncio.run(read_announced_batches(fleet.bootstrap_servers))
    return [batch for batch in batches if batch.model == fleet.model]


def examples(fleet: Fleet) -> Path:
    return write_jsonl(fleet.folder / "a.jsonl", [chat(str(n)) for n in range(40)])


def test_a_file_is_trained_on_after_the_feedback(fleet: Fleet) -> None:
    """The run replays a batch of feedback, starts from the base, and is judged on both sets."""
    asyncio.run(fleet.register_base())
    of_feedback = asyncio.run(fleet.announce(fleet.batch()))
    status, out, _ = train(fleet, "--data", str(examples(fleet)), "--dry-run", "--json")
    assert (status, json.loads(out)["errors"]) == (0, 0)
    assert announced(fleet) == [of_feedback]
    own_values = ("--set", "rank=24", "--set", "targets=q_proj,v_proj")
    status, out, error = train(fleet, "--data", str(examples(fleet)), "--json", *own_values)
    assert status == 0, error
    batch = BatchReady.model_validate(json.loads(out))
    assert announced(fleet) == [of_feedback, batch]
    assert (batch.lane, batch.number) == ("master", 1)
    manifest = read_manifest(FsspecStore(str(fleet.folder / "objects")), batch.manifest)
    assert manifest.previous == of_feedback.manifest
    asyncio.run(fleet.start())
    outcome = asyncio.run(fleet.wait_for_outcome(batch))
    assert (outcome.lane, outcome.lineage, outcome.parent_adapter) == ("master", "fresh", None)
    assert (outcome.configuration.rank, outcome.configuration.epochs) == (24, 1)
    assert outcome.configuration.targets == ("q_proj", "v_proj")
    assert outcome.metrics is not None
    assert outcome.metrics.examples_new == batch.counts.training
    assert outcome.metrics.examples_replayed == 4
    assert outcome.verdict is not None
    [held_out] = [each for each in outcome.verdict.comparisons if each.name == "held_out"]
    assert held_out.examples == batch.counts.held_out + of_feedback.counts.held_out


def test_a_dataset_that_is_announced_again_is_the_same_batch(fleet: Fleet) -> None:
    status, out, _ = train(fleet, "--data", str(examples(fleet)))
    assert status == 0
    name = next(word for word in out.split() if word.startswith(f"{fleet.model}@"))
    status, again, _ = train(fleet, "--data", name, "--json")
    assert status == 0
    [batch] = announced(fleet)
    assert json.loads(again)["batch_id"] == batch.batch_id
    assert batch.number == 0


def test_wrong_requests_announce_nothing(fleet: Fleet) -> None:
    path = examples(fleet)
    refused = {
        (str(fleet.folder / "none"),): (1, "is not a file"),
        (f"{fleet.model}@0",): (1, "no imported datasets match"),
        ("other@0",): (1, f"expected {fleet.model}@ID"),
        (str(path), "--format", "words"): (2, "invalid choice"),
        (str(path), "--set", "rank"): (2, "expected NAME=VALUE"),
        (str(path), "--set", "rank=100"): (2, "outside 8 to 64, the range of the lane master"),
        (str(path), "--set", "epoch=2"): (2, "did you mean epochs?"),
        (str(path), "--set", "targets=query"): (2, "has no query"),
    }
    for (data, *options), (expected, reason) in refused.items():
        status, _, error = train(fleet, "--data", data, *options)
        assert (status, reason in error) == (expected, True), error
    model_file = fleet.folder / "models" / f"{fleet.model}.yaml"
    text = model_file.read_text()
    for wrong, reason in {
        text[: text.index("  master:")]: "declares no lane 'master'",
        text.replace("rank: 16", "targets: [q_proj, query]"): "has no query; it has down_proj",
        text.replace("rank: 16", "rank: 4"): "outside 8 to 64, the range of the lane master",
    }.items():
        model_file.write_text(wrong)
        status, _, error = train(fleet, "--data", str(path))
        assert status == 2
        assert reason in error
    assert announced(fleet) == []


def test_a_refused_file_is_reported_as_json(fleet: Fleet) -> None:
    path = write_jsonl(fleet.folder / "a.jsonl", [chat("a")] * 9)
    status, out, _ = train(fleet, "--data", str(path), "--json")
    assert status == 1
    assert "needs 3 (curation.smallest_batch)" in json.loads(out)["refused"]
    assert announced(fleet) == []


def test_the_newest_feedback_is_before_the_dataset(fleet: Fleet) -> None:
    first, second = fleet.batch(), fleet.batch()
    assert newest_feedback_batch([first, second], fleet.model) == (second, 2)
    trained = second.model_copy(update={"lane": "master", "number": 7})
    assert newest_feedback_batch([first, trained], fleet.model) == (first, 1)
    assert newest_feedback_batch([first], "other") == (None, 0)
