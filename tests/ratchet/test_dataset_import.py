"""`ratchet dataset import`, and imported datasets in the other commands, without Kafka."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shared.identity import digest_of
from tests.support.imported_files import chat, write_jsonl

MODEL = """\
model: support
base: {training: base, serving: base.gguf}
redaction: {kinds: []}
curation: {smallest_batch: 3}
"""


def ratchet(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a command."""
    models = folder / "models"
    models.mkdir(exist_ok=True)
    (models / "support.yaml").write_text(MODEL)
    finished = subprocess.run(
        [sys.executable, "-m", "ratchet", "dataset", *arguments],
        env={
            **os.environ,
            "RATCHET_MODELS": str(models),
            "RATCHET_OBJECT_STORE": str(folder / "store"),
            "COLUMNS": "200",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    return finished.returncode, finished.stdout, finished.stderr


def test_an_import_prints_its_numbers_and_errors(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "-a.jsonl", [*(chat(str(n)) for n in range(30)), b"{"])
    status, out, progress = ratchet(tmp_path, "import", "--model=support", "--", str(path))
    assert status == 0
    assert "import: 31 lines read: 30 examples, 0 dropped, 1 errors" in progress
    for line in ("lines read        │ 31", "lines with errors │ 1", "31   │       │ not JSON"):
        assert line in out
    assert f"all errors: {path}.errors.jsonl" in out
    assert "written as support@" in out


def test_an_imported_dataset_is_listed_shown_and_exported(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [chat(str(n)) for n in range(30)])
    _, out, _ = ratchet(tmp_path, "import", str(path), "--model", "support", "--json")
    report = json.loads(out)
    name = f"support@{report['dataset'][:8]}"
    status, listed, _ = ratchet(tmp_path, "list", "support", "--imported", "--json")
    assert status == 0
    assert [(each["id"], each["manifest"]) for each in json.loads(listed)] == [
        (report["dataset"], report["manifest"]["uri"])
    ]
    _, table, _ = ratchet(tmp_path, "list", "support", "--imported")
    assert f"support@{report['dataset'][:12]}" in table
    _, page, _ = ratchet(tmp_path, "show", name)
    assert f"file `{digest_of(path.read_bytes())}`" in page
    _, verified, _ = ratchet(tmp_path, "verify", name, "--all", "--json")
    assert json.loads(verified) == {
        "whole": True,
        "batches": [f"support@{report['dataset'][:12]}"],
        "faults": [],
    }
    status, _, _ = ratchet(tmp_path, "export", name, "--to", str(tmp_path), "--format", "chat")
    assert status == 0
    exported = tmp_path / "training.chat.jsonl"
    assert len(exported.read_bytes().splitlines()) == report["examples"]["training"]
    status, again, _ = ratchet(
        tmp_path, "import", str(exported), "--model", "support", "--dry-run", "--json"
    )
    assert status == 0
    assert json.loads(again)["examples"] == report["examples"] | {"held_out": 0}


def test_an_unknown_dataset_is_refused_with_advice(tmp_path: Path) -> None:
    status, _, error = ratchet(tmp_path, "verify", "support@0")
    assert status == 1
    assert "no imported datasets match 'support@0'; `ratchet dataset list support" in error


@pytest.mark.parametrize(
    ("options", "status", "reason"),
    [
        (["--model", "support"], 1, "needs 3 (curation.smallest_batch)"),
        (["--model", "other"], 2, "declares the model 'other'"),
        (["--model", "support", "--format", "words"], 2, "invalid choice: 'words'"),
    ],
)
def test_the_status_of_a_refused_import(
    tmp_path: Path, options: list[str], status: int, reason: str
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [chat("a")])
    found, out, error = ratchet(tmp_path, "import", str(path), *options)
    assert found == status
    assert reason in out + error
