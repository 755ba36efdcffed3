"""The examples, run against a real broker: their feedback is scored, and a user's feedback is on
one partition.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ratchet.demo.event_watcher import read_records
from services.feedback.scoring import Policies, ScoredFeedback, score
from shared.config.models import load_models
from shared.messaging.bus import Record
from shared.messaging.topics import FEEDBACK_RECEIVED
from tests.support.completions import ANSWER, answer
from tests.support.programs import require_program

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

EXAMPLES, CLIENT = Path("examples").absolute(), Path("clients/python").absolute()
PARTITIONS: set[int] = set()
"""Partitions with feedback of the user `agent-01` from any example."""


def run(folder: Path, *command: str, **environment: str) -> str:
    """Run a command and return its last line of output."""
    process = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    # Maven prints a colour reset even without colours.
    return [line for line in process.stdout.replace("\x1b[0m", "").splitlines() if line][-1]


def run_python(folder: Path, name: str, *arguments: str) -> str:
    # The client keeps its spool in the home folder.
    return run(
        folder,
        sys.executable,
        str(EXAMPLES / name),
        *arguments,
        HOME=str(folder),
        PYTHONPATH=str(CLIENT),
    )


def with_python(broker: str, folder: Path) -> str:
    return run_python(folder, "producer.py", broker)


def with_kcat(broker: str, folder: Path) -> str:
    require_program("kcat")
    return run(folder, str(EXAMPLES / "producer.sh"), RATCHET_BOOTSTRAP_SERVERS=broker)


def with_go(broker: str, folder: Path) -> str:
    shutil.copytree(EXAMPLES / "go", folder / "go")
    return run(folder / "go", require_program("go"), "run", "-mod=readonly", ".", broker)


def with_java(broker: str, folder: Path) -> str:
    shutil.copytree(EXAMPLES / "java", folder / "java", ignore=shutil.ignore_patterns("target"))
    return run(
        folder / "java",
        require_program("mvn"),
        "-q",
        "-B",
        "compile",
        "exec:java",
        f"-Dexec.args={broker}",
    )


async def record_and_score(broker: str, event_id: str) -> tuple[Record, ScoredFeedback]:
    """Return the record of an event, and its score by the committed model files."""
    records = [
        record
        for record in await read_records(broker, [FEEDBACK_RECEIVED])
        if event_id.encode() in (record.value or b"")
    ]
    (record,) = records
    return record, score(record, Policies(load_models(EXAMPLES.parent / "models")))


@pytest.mark.parametrize("example", [with_python, with_kcat, with_go, with_java])
async def test_the_feedback_of_each_example_is_scored(
    broker: str, tmp_path: Path, example: Callable[[str, Path], str]
) -> None:
    event_id = await asyncio.to_thread(example, broker, tmp_path)
    record, scored = await record_and_score(broker, event_id)
    assert (scored.event.event_id, scored.event.feedback_type) == (event_id, "thumbs_down")
    assert scored.event.reward < 0
    assert record.key == b"agent-01"
    PARTITIONS.add(record.partition)
    assert len(PARTITIONS) == 1, "the examples use different partitioners"


@pytest.fixture
def server() -> Iterator[str]:
    """A server for chat completions."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content_type, body = answer(
                json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            )
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.server_port}/v1"
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()


async def test_captured_feedback_contains_the_request(
    broker: str, server: str, tmp_path: Path
) -> None:
    event_id = await asyncio.to_thread(run_python, tmp_path, "openai_capture.py", server, broker)
    record, scored = await record_and_score(broker, event_id)
    event = scored.event
    assert (event.model, event.model_version, event.output, event.messages[0].content) == (
        "support",
        "v3",
        ANSWER,
        "The kettle is late.",
    )
    assert (event.feedback_type, event.user_id, record.key) == (
        "thumbs_up",
        "agent-01",
        b"agent-01",
    )
    assert event.response_id
