"""`ratchet up` of the present version on a state folder of the previous one."""

import signal
import sqlite3
import subprocess
import sys
import tarfile
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import httpx
import pytest

from ratchet.local_stack.ports import free_port
from ratchet.local_stack.processes import Ports, local_url
from tests.previous.test_previous_state import PREVIOUS

pytestmark = [pytest.mark.kafka, pytest.mark.model, pytest.mark.chaos, pytest.mark.timeout(400)]

CHAMPION = "v2_20261130_002629"


def test_an_upgraded_stack_serves_the_champion(tmp_path: Path, bases: Path) -> None:
    """The adapter is merged and deployed again, every page opens, and nothing is trained twice."""
    state, ports = tmp_path / "state", Ports(**{field.name: free_port() for field in fields(Ports)})
    with tarfile.open(PREVIOUS / "state.tar.xz") as archive:
        archive.extractall(state, filter="data")
    options = [
        f"--{field.name.replace('_', '-')}-port={getattr(ports, field.name)}"
        for field in fields(Ports)
    ]
    command = [sys.executable, "-m", "ratchet", "up", "--state", str(state), "--bases", str(bases)]
    log = tmp_path / "up.log"
    with log.open("wb") as output:
        stack = subprocess.Popen(
            [*command, "--models", str(PREVIOUS / "models"), *options],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        answer = _ask_until_answered(ports, seconds=240)
        assert answer["choices"][0]["message"]["content"]
        registry = local_url(ports.registry)
        aliases = httpx.get(f"{registry}/api/models/support/aliases/champion").json()
        assert aliases["version"] == CHAMPION
        for path in ("/", "/models/support", f"/models/support/versions/{CHAMPION}"):
            assert httpx.get(registry + path, follow_redirects=True).status_code == 200, path
    finally:
        stack.send_signal(signal.SIGINT)
        status = stack.wait(timeout=60)
    assert status == 0, log.read_text()
    with sqlite3.connect(state / "registry.db") as database:
        assert database.execute("select count(*) from runs").fetchone() == (2,)


def _ask_until_answered(ports: Ports, seconds: float) -> dict[str, Any]:
    body = {"model": "support", "messages": [{"role": "user", "content": "Hello"}]} | {
        "max_tokens": 4
    }
    until = time.monotonic() + seconds
    while True:
        try:
            response = httpx.post(
                local_url(ports.serving, "/v1/chat/completions"), json=body, timeout=30
            )
            if response.status_code == 200:
                answer: dict[str, Any] = response.json()
                return answer
        except httpx.HTTPError:
            pass
        assert time.monotonic() < until, "no answer in time"
        time.sleep(1)
