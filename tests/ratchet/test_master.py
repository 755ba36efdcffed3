"""`ratchet master` on a real broker: a folder of documents becomes a batch of the lane `master`."""

import asyncio
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from ratchet.dataset.lookup import read_announced_batches
from ratchet.dataset.master import batch_rows
from shared.events import Artefact, BatchCounts, BatchReady
from shared.identity import digest_of
from shared.storage.object_store import FsspecStore
from shared.storage.snapshots import read_manifest

DOCUMENTS = Path(__file__).parent.parent / "dataset" / "sources" / "documents"
MODEL_FILE = """\
model: {model}
base: {{training: base, serving: base.gguf}}
curation: {{smallest_batch: 3}}
lanes:
  adaptive: {{}}
  master: {{}}
"""


def master(
    folder: Path, command: str, model: str, *arguments: str, servers: str = "127.0.0.1:1"
) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a command."""
    models = folder / "models"
    models.mkdir(exist_ok=True)
    (models / f"{model}.yaml").write_text(MODEL_FILE.format(model=model))
    finished = subprocess.run(
        [sys.executable, "-m", "ratchet", "master", command, model, *arguments],
        env={
            **os.environ,
            "RATCHET_MODELS": str(models),
            "RATCHET_OBJECT_STORE": str(folder / "objects"),
            "RATCHET_BASES": str(folder / "bases"),
            "RATCHET_BOOTSTRAP_SERVERS": servers,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    return finished.returncode, finished.stdout, finished.stderr


def test_a_plan_needs_no_broker_and_writes_nothing(tmp_path: Path) -> None:
    status, out, _ = master(tmp_path, "plan", "support", "--documents", str(DOCUMENTS))
    assert status == 0
    for expected in (
        "documents read",
        "files left out: a licence",
        "filtered: ambiguous",
        "guides/larkspur-manual.md, lines ",
        "documents held out: ",
        "nothing was written; it would be support@",
    ):
        assert expected in out
    assert not (tmp_path / "objects").exists()
    empty = tmp_path / "empty"
    empty.mkdir()
    status, out, _ = master(tmp_path, "plan", "support", "--documents", str(empty), "--json")
    assert status == 1
    assert "no file of" in json.loads(out)["refused"]


@pytest.mark.kafka
def test_documents_are_announced_as_one_batch(broker: str, tmp_path: Path) -> None:
    model = f"master-{uuid4().hex[:8]}"
    options = ("--documents", str(DOCUMENTS), "--set", "rank=32", "--json")
    outputs = [master(tmp_path, "run", model, *options, servers=broker) for _ in range(2)]
    assert [status for status, _, _ in outputs] == [0, 0], outputs
    announced = asyncio.run(read_announced_batches(broker))
    [batch] = [each for each in announced if each.model == model]
    assert {json.loads(out)["batch_id"] for _, out, _ in outputs} == {batch.batch_id}
    assert (batch.lane, batch.number) == ("master", 0)
    manifest = read_manifest(FsspecStore(str(tmp_path / "objects")), batch.manifest)
    assert manifest.imported is not None
    assert manifest.imported.documents == 5
    assert manifest.hyperparameters == {"rank": 32}
    assert batch.counts.training > 20


@pytest.mark.kafka
def test_wrong_requests_announce_nothing(broker: str, tmp_path: Path) -> None:
    model = f"master-{uuid4().hex[:8]}"
    empty = tmp_path / "empty"
    empty.mkdir()
    for options, expected, reason in (
        (("--documents", str(DOCUMENTS), "--set", "rank=100"), 2, "outside 8 to 64"),
        (("--documents", str(DOCUMENTS), "--recipe", "none.yaml"), 2, "none.yaml cannot be read"),
        (("--documents", str(empty)), 1, "no file of"),
    ):
        status, out, error = master(tmp_path, "run", model, *options, servers=broker)
        assert status == expected, error
        assert reason in out + error
    assert model not in {each.model for each in asyncio.run(read_announced_batches(broker))}


def test_batches_are_joined_with_their_newest_runs() -> None:
    def batch(number: int, lane: str = "master") -> BatchReady:
        return BatchReady.model_validate(
            {
                "event_id": f"batch {number}",
                "occurred_at": datetime(2026, 1, 1, tzinfo=UTC),
                "batch_id": f"batch {number}",
                "model": "support",
                "model_digest": digest_of(b"a"),
                "shard": 0,
                "number": number,
                "lane": lane,
                "manifest": Artefact(uri="a", digest=digest_of(b"a")),
                "counts": BatchCounts(training=20, preference=0, negative=0, held_out=3),
                "offsets": (),
            }
        )

    def run(run_id: str, batch_id: str, state: str) -> dict[str, Any]:
        return {
            "run_id": run_id,
            "batch_id": batch_id,
            "state": state,
            "step": 1,
            "total_steps": 2,
            "version": None,
            "reason": "",
        }

    runs = [run("c", "batch 1", "training"), run("b", "batch 1", "failed"), run("a", "x", "done")]
    rows = batch_rows([batch(0), batch(1), batch(2, "adaptive")], runs)
    assert [(row["batch_id"], row["state"], row["run_id"]) for row in rows] == [
        ("batch 1", "training", "c"),
        ("batch 0", "waiting", None),
    ]
    assert (rows[1]["training"], rows[1]["held_out"]) == (20, 3)
