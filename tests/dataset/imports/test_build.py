"""The import as a process: exit status, a dry run, memory, and a kill at any point."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shared.storage.object_store import FsspecStore
from tests.support.imported_files import chat, write_jsonl

MODEL = """\
model: support
base: {training: base, serving: base.gguf}
redaction: {kinds: []}
curation: {smallest_batch: 3}
"""
LINES = 100_000
PADDING = 7_000
MEMORY_BYTES = 640 << 20
"""Limit of the resident memory of an import of `LINES` lines."""
PRINT_PEAK = """\
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=sys.stderr)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
"""
"""Runs a command and prints its peak of resident memory, in bytes. A process of its own: the peak
of a child starts with the memory of the process that forks it, which is large for a test runner.
"""


def command(path: Path, *options: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "services.dataset.build", "--model=support", *options, str(path))


def environment(folder: Path, **variables: str) -> dict[str, str]:
    models = folder / "models"
    models.mkdir(exist_ok=True)
    (models / "support.yaml").write_text(MODEL)
    return {
        **os.environ,
        "RATCHET_MODELS": str(models),
        "RATCHET_OBJECT_STORE": str(folder / "store"),
        **variables,
    }


def run(folder: Path, path: Path, *options: str, **variables: str) -> tuple[int, Any, str]:
    """Exit status, report and standard error of an import."""
    finished = subprocess.run(
        command(path, *options),
        env=environment(folder, **variables),
        capture_output=True,
        text=True,
        check=False,
    )
    return (
        finished.returncode,
        json.loads(finished.stdout) if finished.stdout else None,
        finished.stderr,
    )


def snapshot_of(folder: Path) -> dict[str, bytes]:
    store = FsspecStore(str(folder / "store"))
    return {key: store.get(key) for key in store.list_keys("snapshots")}


def test_a_dry_run_writes_nothing_and_names_the_dataset(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [*(chat(str(n)) for n in range(20)), b"{"])
    before = sorted(tmp_path.iterdir())
    status, checked, _ = run(tmp_path, path, "--dry-run")
    assert status == 0
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "models"])
    status, imported, _ = run(tmp_path, path)
    assert status == 0
    assert (checked["dataset"], checked["manifest"]) == (imported["dataset"], imported["manifest"])
    assert imported["errors_file"] == f"{path}.errors.jsonl"
    assert FsspecStore(str(tmp_path / "store")).exists(imported["manifest"]["uri"])


@pytest.mark.parametrize(
    ("options", "variables", "status", "reason"),
    [
        ((), {}, 1, "is not a file; no dataset was written"),
        (("--model=other",), {}, 2, "declares the model 'other'; declared: support"),
        (("--columns=prompt",), {}, 2, "expected FIELD=NAME"),
        (("--format=words",), {}, 2, "invalid choice: 'words'"),
        ((), {"RATCHET_MODELS": "none"}, 2, "no model file"),
    ],
)
def test_refusals_have_their_exit_status(
    tmp_path: Path,
    options: tuple[str, ...],
    variables: dict[str, str],
    status: int,
    reason: str,
) -> None:
    found = run(tmp_path, tmp_path / "none", *options, **variables)
    assert (found[0], found[1]) == (status, None)
    assert reason in found[2]


def test_a_refused_dataset_is_reported_with_status_1(tmp_path: Path) -> None:
    status, report, _ = run(tmp_path, write_jsonl(tmp_path / "a.jsonl", [chat("a")]))
    assert status == 1
    assert report["manifest"] is None
    assert "needs 3 (curation.smallest_batch)" in report["refused"]
    assert snapshot_of(tmp_path) == {}


def test_a_killed_import_is_repeated_to_the_same_dataset(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", (chat(str(n)) for n in range(12_000)))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    _, expected, _ = run(whole, path)
    with subprocess.Popen(
        command(path), env=environment(killed), stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == (
            "import: 5,000 lines read: 5,000 examples, 0 dropped, 0 errors\n"
        )
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert snapshot_of(killed) == {}
    status, _, _ = run(killed, path, RATCHET_FAILPOINTS="dataset.data_written=kill")
    assert status == -signal.SIGKILL
    left = snapshot_of(killed)
    assert left
    assert not any("manifests" in key for key in left)
    status, report, _ = run(killed, path)
    assert (status, report) == (0, expected)
    assert snapshot_of(killed) == snapshot_of(whole)


@pytest.mark.chaos
def test_100_000_lines_need_bounded_memory(tmp_path: Path) -> None:
    """Nearly all examples are kept. They alone are larger than the limit."""
    path = tmp_path / "a.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(LINES):
            answer = f"{number} and {LINES - number} " + "-" * PADDING
            record = {"prompt": f"How much is {number} times {number}?", "completion": answer}
            file.write(json.dumps(record) + "\n")
    assert path.stat().st_size > MEMORY_BYTES
    measured = subprocess.run(
        (sys.executable, "-c", PRINT_PEAK, *command(path)),
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=True,
    )
    examples = json.loads(measured.stderr.splitlines()[-1])["examples"]
    assert examples["training"] + examples["held_out"] > 0.95 * LINES
    assert int(measured.stdout) < MEMORY_BYTES
