"""End-to-end test: a short demo with a service killed during training, and the stack restarted on
its state.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import httpx
import pytest
from selenium.webdriver.common.by import By

from ratchet.local_stack.ports import free_port
from ratchet.local_stack.processes import Ports, local_url
from ratchet.registry_client import RegistryClient
from tests.support.browser import browser

pytestmark = [pytest.mark.kafka, pytest.mark.model, pytest.mark.chaos, pytest.mark.timeout(2400)]

ROUNDS = 3
KILLED = "trainer"
SCREENSHOTS = Path(".ratchet/screenshots")


@dataclass(frozen=True)
class FinishedDemo:
    """Report, log and folder of a finished demo."""

    report: dict[str, Any]
    log: str
    state: Path


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, bases: Path) -> FinishedDemo:
    """The demo with three good rounds; the trainer is killed with SIGKILL while the last one
    trains.
    """
    state = tmp_path_factory.mktemp("demo")
    command = (
        sys.executable,
        "-m",
        "ratchet",
        "demo",
        "--rounds",
        str(ROUNDS),
        "--more",
        "0",
        "--tickets",
        "20",
        "--state",
        str(state),
        "--bases",
        str(bases),
    )
    output = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            output.append(line)
            if line.startswith(f"▸ round {ROUNDS}: training"):
                os.kill(_process_id(process.pid, KILLED), signal.SIGKILL)
    assert process.returncode == 0, "".join(output) + (state / "ratchet.log").read_text()[-5000:]
    return FinishedDemo(
        json.loads((state / "report.json").read_text()), (state / "ratchet.log").read_text(), state
    )


def _process_id(parent: int, service: str) -> int:
    """Return the process id of a service whose supervisor is `parent`."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0")
            entry_parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if entry_parent == parent and f"services.{service}".encode() in command:
            return int(entry.name)
    raise AssertionError(f"{service} is not running")


def test_the_model_learns_despite_a_killed_trainer(demo: FinishedDemo) -> None:
    assert f"{KILLED} exited with signal SIGKILL; restarting it" in demo.log
    rounds = demo.report["rounds"]
    assert [row["verdict"] for row in rounds] == ["promote"] * ROUNDS
    assert (
        len({row["version"] for row in rounds})
        == len({row["batch_id"] for row in rounds})
        == ROUNDS
    )
    assert all(row["heldout_after"] > row["heldout_before"] for row in rounds)
    assert rounds[-1]["exact"] > demo.report["base"]["exact"]


def test_poison_is_rejected_and_the_champion_stays(demo: FinishedDemo) -> None:
    poisoned = demo.report["poisoned"]
    assert poisoned["verdict"] == "reject"
    assert any(reason.startswith("golden: ") for reason in poisoned["reasons"])
    assert (
        poisoned["champion_before"]
        == poisoned["champion_after"]
        == demo.report["rounds"][-1]["version"]
    )
    assert poisoned["exact_after"] == demo.report["rounds"][-1]["exact"]


def test_a_rollback_restores_the_old_answers(demo: FinishedDemo) -> None:
    rollback = demo.report["rollback"]
    assert rollback["answer_changed"] is True
    assert rollback["from"] == demo.report["rounds"][-1]["version"] != rollback["to"]


def test_every_event_is_accounted_for(demo: FinishedDemo) -> None:
    events = demo.report["events"]
    accounted = (
        events["batched"]
        + events["held_out"]
        + sum(events["dropped"].values())
        + events["dead_lettered"]
        + events["pending"]
    )
    assert events["sent"] == accounted
    assert events["dead_lettered"] == 1
    assert events["batched"] >= 50 * (ROUNDS + 1)
    assert events["scored"] == events["sent"] - events["dead_lettered"]


def test_only_the_owner_reads_the_state(demo: FinishedDemo) -> None:
    stack = demo.state / "stack"
    written = [path for path in stack.rglob("*") if not path.is_symlink()]
    assert len(written) > 50
    open_to_others = [path for path in (stack, *written) if path.stat().st_mode & 0o077]
    assert open_to_others == []


def test_each_round_creates_one_version(
    demo: FinishedDemo, stack: subprocess.Popen[str], ports: Ports
) -> None:
    """The killed run was resumed, and its batch has exactly one version."""
    assert stack.poll() is None
    with RegistryClient(local_url(ports.registry)) as registry:
        versions = registry.get("/api/models/support/versions")["items"]
    batches = [version["batch_id"] for version in versions if version["batch_id"]]
    assert sorted(batches) == sorted(row["batch_id"] for row in demo.report["rounds"])


@pytest.fixture(scope="module")
def ports() -> Ports:
    return Ports(**{field.name: free_port() for field in fields(Ports)})


@pytest.fixture(scope="module")
def stack(demo: FinishedDemo, bases: Path, ports: Ports) -> Iterator[subprocess.Popen[str]]:
    """`ratchet up` on the demo's folder."""
    options = [
        f"--{field.name.replace('_', '-')}-port={getattr(ports, field.name)}"
        for field in fields(Ports)
    ]
    command = (
        sys.executable,
        "-m",
        "ratchet",
        "up",
        "--state",
        str(demo.state / "stack"),
        "--bases",
        str(bases),
        *options,
    )
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if "Ctrl-C stops" in line:
            break
    yield process
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


async def test_the_stack_resumes_from_its_state(
    demo: FinishedDemo, stack: subprocess.Popen[str], ports: Ports
) -> None:
    assert stack.poll() is None
    champion = demo.report["rounds"][-1]["version"]
    with RegistryClient(local_url(ports.registry)) as registry:
        assert registry.get("/api/models/support/aliases/champion")["version"] == champion
    async with httpx.AsyncClient(timeout=60) as client, asyncio.timeout(60):
        body = {
            "model": "support",
            "messages": [{"role": "user", "content": "Hi"}],
            "max_tokens": 4,
        }
        while (
            answer := await client.post(local_url(ports.serving, "/v1/chat/completions"), json=body)
        ).status_code != httpx.codes.OK:
            await asyncio.sleep(0.5)
    assert answer.json()["model"] == f"support:{champion}"


def test_the_pages_show_the_champion_and_its_runs(
    demo: FinishedDemo, stack: subprocess.Popen[str], ports: Ports, tmp_path: Path
) -> None:
    """In a real browser: the champion, each run's loss curve and batch, and the reason for the
    rejection; no requests to other hosts.
    """
    with browser(tmp_path / "profile") as driver:
        driver.get(local_url(ports.registry, "/models/support"))
        page = driver.find_element(By.TAG_NAME, "body").text
        assert (
            demo.report["rounds"][-1]["version"]
            in driver.find_element(By.CSS_SELECTOR, "strong.champion").text
        )
        assert (
            len(
                driver.find_elements(
                    By.CSS_SELECTOR, "section[aria-labelledby=runs] svg.spark polyline"
                )
            )
            == ROUNDS + 1
        )
        assert demo.report["poisoned"]["reasons"][0] in page
        assert "demo: forward again" in page
        requested = driver.execute_script(
            "return performance.getEntriesByType('resource').map(entry => entry.name)"
        )
        assert [
            name for name in requested if not name.startswith((local_url(ports.registry), "data:"))
        ] == []
        console = driver.get_log("browser")  # type: ignore[no-untyped-call]  # selenium has no types for it
        assert [entry for entry in console if entry["level"] == "SEVERE"] == []
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        assert driver.save_screenshot(str(SCREENSHOTS / "model.png"))
        for run in [
            link.get_attribute("href")
            for link in driver.find_elements(By.CSS_SELECTOR, "section[aria-labelledby=runs] th a")
        ]:
            driver.get(str(run))
            assert len(driver.find_elements(By.CSS_SELECTOR, ".plot canvas")) == 1
            data = driver.find_element(By.CSS_SELECTOR, "section[aria-labelledby=data]").text
            assert "Shown as stored: personal data is redacted." in data


def test_a_second_stack_on_the_same_ports_gets_advice(
    stack: subprocess.Popen[str], ports: Ports, tmp_path: Path
) -> None:
    command = (
        sys.executable,
        "-m",
        "ratchet",
        "up",
        "--state",
        str(tmp_path),
        "--registry-port",
        str(ports.registry),
    )
    other_ports = [
        f"--{name}-port={free_port()}"
        for name in (
            "kafka",
            "kafka-controller",
            "serving",
            "feedback",
            "dataset",
            "builder",
            "trainer",
        )
    ]
    process = subprocess.run(
        (*command, *other_ports), capture_output=True, text=True, timeout=60, check=False
    )
    assert process.returncode == 1
    assert "is taken" in process.stderr
    assert "--registry-port" in process.stderr


def test_ctrl_c_stops_everything(stack: subprocess.Popen[str], ports: Ports) -> None:
    stack.send_signal(signal.SIGINT)
    output, _ = stack.communicate(timeout=60)
    assert stack.returncode == 0, output
    assert "stopped" in output
    for field in fields(Ports):
        with pytest.raises(httpx.ConnectError):
            httpx.get(local_url(getattr(ports, field.name)), timeout=2)
