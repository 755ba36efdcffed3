"""The build as a process: exit status, a dry run, hostile files, and a kill at any point."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shared.identity import digest_of
from shared.storage.object_store import FsspecStore
from tests.support.documents import docx_of, docx_with_document, pdf_of
from tests.support.teacher_server import (
    HttpReply,
    Request,
    completion,
    examples,
    teacher_server,
)

DOCUMENTS = Path(__file__).parent.parent / "sources" / "documents"
MODEL = """\
model: support
base: {training: base, serving: base.gguf}
curation: {smallest_batch: 3}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The documents, with a PDF that has a scanned page and a DOCX file among them."""
    folder = shutil.copytree(DOCUMENTS, tmp_path / "documents")
    pages = [[("Heron data sheet", 20.0), ("The Heron reaches gauges at up to 7 km.", 10.0)], []]
    (folder / "heron.pdf").write_bytes(pdf_of(pages, picture_pages=[1]))
    paragraphs = [("heading 1", "Returns"), ("", "A gauge is repaired within ten working days.")]
    (folder / "returns.docx").write_bytes(docx_of(paragraphs))
    return folder


def command(folder: Path, *options: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "services.dataset.build",
        "--model=support",
        f"--documents={folder}",
        *options,
    ]


def environment(tmp_path: Path, store: str, **variables: str) -> dict[str, str]:
    models = tmp_path / "models"
    models.mkdir(exist_ok=True)
    (models / "support.yaml").write_text(MODEL)
    return {
        **os.environ,
        "RATCHET_MODELS": str(models),
        "RATCHET_OBJECT_STORE": str(tmp_path / store),
        **variables,
    }


def build(
    tmp_path: Path, folder: Path, *options: str, store: str = "store", **variables: str
) -> tuple[int, Any, str]:
    """Exit status, report and standard error of a build."""
    finished = subprocess.run(
        command(folder, *options),
        env=environment(tmp_path, store, **variables),
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(finished.stdout) if finished.stdout else None
    return finished.returncode, report, finished.stderr


def snapshot_of(store: Path) -> dict[str, bytes]:
    opened = FsspecStore(str(store))
    return {key: opened.get(key) for key in opened.list_keys("snapshots")}


def test_a_dry_run_names_the_dataset(tmp_path: Path, folder: Path) -> None:
    status, planned, _ = build(tmp_path, folder, "--dry-run")
    assert status == 0
    assert not (tmp_path / "store").exists()
    assert planned["first_places"] == [
        {
            "name": "heron.pdf, page 2",
            "reason": "no text layer (a scan or a picture); run OCR on it",
        }
    ]
    assert planned["documents"] == 7
    status, report, _ = build(tmp_path, folder)
    assert (status, report) == (0, planned)
    assert report["manifest"]["uri"] in snapshot_of(tmp_path / "store")


def test_hostile_files_are_reported_beside_the_others(tmp_path: Path, folder: Path) -> None:
    (folder / "bomb.docx").write_bytes(docx_with_document(b" " * (65 << 20)))
    (folder / "deep.html").write_text("<div>" * 100_000 + "<h1>Deep</h1><p>Deep down.")
    (folder / "broken.pdf").write_bytes((folder / "heron.pdf").read_bytes()[:200])
    status, report, _ = build(tmp_path, folder)
    assert status == 0
    reasons = {file["name"]: file["reason"] for file in report["left_out_files"]}
    assert "65 MiB of XML" in reasons["bomb.docx"]
    assert "not a readable PDF file" in reasons["broken.pdf"]
    assert report["files_left_out"]["unreadable"] == 2
    assert report["documents"] == 8


def test_a_killed_build_is_repeated_to_the_same_dataset(tmp_path: Path, folder: Path) -> None:
    _, expected, _ = build(tmp_path, folder, store="whole")
    killed = tmp_path / "killed"
    status, _, _ = build(
        tmp_path, folder, store="killed", RATCHET_FAILPOINTS="dataset.data_written=kill"
    )
    assert status == -signal.SIGKILL
    left = snapshot_of(killed)
    assert left
    assert not any("manifests" in key for key in left)
    assert build(tmp_path, folder, store="killed")[:2] == (0, expected)
    assert snapshot_of(killed) == snapshot_of(tmp_path / "whole")


@pytest.mark.parametrize(
    ("options", "status", "reason"),
    [
        (("--recipe=none.yaml",), 2, "none.yaml cannot be read"),
        (("--model=other",), 2, "declares the model 'other'"),
        (("a.jsonl",), 2, "not allowed with argument"),
    ],
)
def test_wrong_commands_have_their_exit_status(
    tmp_path: Path, folder: Path, options: tuple[str, ...], status: int, reason: str
) -> None:
    found = build(tmp_path, folder, *options)
    assert (found[0], found[1]) == (status, None)
    assert reason in found[2]


def test_a_missing_folder_and_an_empty_one_are_refused(tmp_path: Path) -> None:
    status, report, error = build(tmp_path, tmp_path / "none")
    assert (status, report) == (1, None)
    assert "is neither a folder nor a file; no dataset was written" in error
    (tmp_path / "empty").mkdir()
    status, report, _ = build(tmp_path, tmp_path / "empty")
    assert status == 1
    assert "no file of" in report["refused"]


def recipe_with(tmp_path: Path, url: str, **fields: int) -> Path:
    """A recipe with a teacher at this address."""
    path = tmp_path / "recipe.yaml"
    teacher = {"url": url, "model": "large", "concurrency": 2, **fields}
    path.write_text(json.dumps({"teacher": teacher}))
    return path


def grounded(request: Request, number: int) -> HttpReply:
    """Answer with one example from the passage, one with another number, in a code fence."""
    passage = request["messages"][-1]["content"].split("Passage:\n")[1].split("\n\nWrite up")[0]
    words = passage.split()[:8]
    question = f"Which words begin the part with {hash_of(passage)}?"
    supported = (f"Which words come after {words[0].lower()}?", " ".join(words), " ".join(words))
    invented = (question, "It costs 987654 EUR.", " ".join(words))
    return completion(f"```json\n{examples(supported, invented)}\n```")


def hash_of(text: str) -> str:
    """A word for a text, without digits and capitals."""
    return "".join(chr(ord("a") + int(digit, 16)) for digit in digest_of(text.encode())[7:15])


def test_a_teacher_adds_grounded_examples(tmp_path: Path, folder: Path) -> None:
    cache = {"RATCHET_TEACHER_CACHE": str(tmp_path / "cache")}
    (tmp_path / "key").write_text("secret\n")
    key = {"RATCHET_TEACHER_KEY_FILE": str(tmp_path / "key")}
    with teacher_server(grounded) as server:
        recipe = f"--recipe={recipe_with(tmp_path, server.url)}"
        status, planned, error = build(tmp_path, folder, recipe, "--dry-run", **cache)
        assert status == 0, error
        assert (planned["teacher"]["calls"], server.requests) == (0, [])
        assert planned["teacher"]["missing"] > 5
        assert "taught" not in planned["candidates"]
        status, report, error = build(tmp_path, folder, recipe, **cache, **key)
        assert status == 0, error
        calls = len(server.requests)
        assert set(server.keys) == {"Bearer secret"}
    assert report["teacher"]["calls"] == calls == planned["teacher"]["missing"]
    assert report["teacher"]["ungrounded"]["number"] == calls
    assert report["candidates"]["taught"] == report["teacher"]["written"] > 0
    [sample, *_] = [each for each in report["samples"] if each["origin"] == "taught"]
    name, _, place = sample["source"].partition(", ")
    assert (folder / name).is_file()
    assert place.split()[0].rstrip("s") in ("line", "page", "paragraph", "second")


def test_personal_data_is_not_sent_to_a_teacher(tmp_path: Path, folder: Path) -> None:
    text = "Write to ines.weber@larkspur.example before a gauge is sent back, in any case at all."
    (folder / "contact.md").write_text(f"# Contact of ines.weber@larkspur.example\n\n{text}\n")
    with teacher_server(grounded) as server:
        recipe = f"--recipe={recipe_with(tmp_path, server.url)}"
        cache = {"RATCHET_TEACHER_CACHE": str(tmp_path / "cache")}
        status, report, error = build(tmp_path, folder, recipe, **cache)
        assert status == 0, error
    sent = json.dumps(server.requests)
    assert "before a gauge is sent back" in sent
    assert "<EMAIL_1>" in sent
    assert "larkspur.example" not in sent + json.dumps(report["samples"])
    assert report["redacted"] == {"email": 3}


def test_a_build_killed_while_it_asks_continues(tmp_path: Path, folder: Path) -> None:
    """The second build asks only for what the first has no reply to, and makes the dataset of a
    build that was never interrupted.
    """
    stopped: list[subprocess.Popen[bytes]] = []

    def kill_at_the_fourth(request: Request, number: int) -> HttpReply:
        if number == 3 and stopped:
            stopped[0].kill()
        return grounded(request, number)

    with teacher_server(kill_at_the_fourth) as server:
        recipe = f"--recipe={recipe_with(tmp_path, server.url)}"
        whole = {"RATCHET_TEACHER_CACHE": str(tmp_path / "whole-cache")}
        status, expected, error = build(tmp_path, folder, recipe, store="whole", **whole)
        assert status == 0, error
        calls = len(server.requests)
        server.requests.clear()
        cut = {"RATCHET_TEACHER_CACHE": str(tmp_path / "cut-cache")}
        process = subprocess.Popen(
            command(folder, recipe),
            env=environment(tmp_path, "cut", **cut),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        stopped.append(process)
        assert process.wait() == -signal.SIGKILL
        answered = len(list((tmp_path / "cut-cache").rglob("*.json")))
        assert 0 < answered < calls
        server.requests.clear()
        stopped.clear()
        status, report, _ = build(tmp_path, folder, recipe, store="cut", **cut)
        assert len(server.requests) == calls - answered
    assert report.pop("teacher")["cached"] == answered
    assert expected.pop("teacher")["cached"] == 0
    assert (status, report) == (0, expected)
    assert snapshot_of(tmp_path / "cut") == snapshot_of(tmp_path / "whole")


def test_a_teacher_that_rejects_the_model_is_named(tmp_path: Path, folder: Path) -> None:
    def reject(request: Request, number: int) -> HttpReply:
        return HttpReply({"error": "model large not found"}, 404)

    with teacher_server(reject) as server:
        recipe = f"--recipe={recipe_with(tmp_path, server.url)}"
        cache = {"RATCHET_TEACHER_CACHE": str(tmp_path / "cache")}
        status, report, error = build(tmp_path, folder, recipe, **cache)
        assert (status, report) == (2, None)
        assert "model large not found" in error
        missing = {"RATCHET_TEACHER_KEY_FILE": str(tmp_path / "none")}
        status, _, error = build(tmp_path, folder, recipe, **cache, **missing)
        assert status == 2
        assert "RATCHET_TEACHER_KEY_FILE cannot be read" in error
