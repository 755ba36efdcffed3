"""The client in an application, on a real broker that is unavailable for a while."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import aclosing
from pathlib import Path
from statistics import median
from uuid import uuid4

import pytest

from ratchet.local_stack.broker import Broker
from ratchet_client import AsyncClient, Client, FeedbackFields, InvalidFeedback
from ratchet_client.spool import DiskSpool
from shared.events import FeedbackReceived
from shared.messaging.codec import decode
from shared.messaging.topics import FEEDBACK_RECEIVED
from tests.support.service_process import read

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]


def feedback(model: str) -> FeedbackFields:
    return {
        "model": model,
        "input": "q",
        "output": "a" * 1000,
        "feedback_type": "thumbs_up",
        "user_id": "ada",
    }


async def received(
    broker: str, model: str, count: int, seconds: float = 20
) -> list[FeedbackReceived]:
    """Return a model's events in log order: until `count` different ones, or a timeout."""
    events: list[FeedbackReceived] = []
    async with aclosing(read(broker, FEEDBACK_RECEIVED, seconds)) as records:
        async for record in records:
            if model.encode() in (record.value or b""):
                events.append(decode(record.value, record.headers, FeedbackReceived).event)
            if len({event.event_id for event in events}) == count:
                break
    return events


def first_seen(events: list[FeedbackReceived]) -> list[str]:
    return list(dict.fromkeys(event.event_id for event in events))


def new_model() -> str:
    return f"m{uuid4().hex[:8]}"


async def test_recorded_events_are_on_the_topic(own_broker: Broker, tmp_path: Path) -> None:
    model = new_model()
    async with AsyncClient(
        bootstrap_servers=own_broker.bootstrap_servers, spool=tmp_path
    ) as ratchet:
        ids = [await ratchet.record_feedback(**feedback(model)) for _ in range(50)]
        assert await ratchet.flush()
        assert (ratchet.counts.sent, ratchet.counts.dropped, ratchet.counts.buffered) == (50, {}, 0)
        with pytest.raises(InvalidFeedback, match="feedback_type"):
            await ratchet.record_feedback(model=model, input="q", output="a")
    assert first_seen(await received(own_broker.bootstrap_servers, model, 50)) == ids
    with pytest.raises(RuntimeError, match="closed"):
        await ratchet.record_feedback(**feedback(model))


async def test_a_hanging_broker_never_blocks_and_nothing_is_lost(
    own_broker: Broker, tmp_path: Path
) -> None:
    model, ids, durations = new_model(), list[str](), list[float]()
    assert own_broker.process
    with Client(bootstrap_servers=own_broker.bootstrap_servers, spool=tmp_path) as ratchet:
        ids.append(ratchet.record_feedback(**feedback(model)))
        assert ratchet.flush()
        own_broker.process.send_signal(signal.SIGSTOP)
        try:
            for _ in range(1500):
                started = time.perf_counter()
                ids.append(ratchet.record_feedback(**feedback(model)))
                durations.append(time.perf_counter() - started)
                await asyncio.sleep(0.0005)
            assert not ratchet.flush(seconds=1.0)
            counts = ratchet.counts
            assert (counts.recorded, counts.spooled, counts.buffered, counts.dropped) == (
                1501,
                1500,
                0,
                {},
            )
        finally:
            own_broker.process.send_signal(signal.SIGCONT)
        assert median(durations) < 0.0005
        assert max(durations) < 0.25
        assert ratchet.flush(seconds=30)
    assert first_seen(await received(own_broker.bootstrap_servers, model, 1501)) == ids
    print(
        f"record_feedback: median {median(durations) * 1e6:.0f} us, "
        f"longest {max(durations) * 1e6:.0f} us"
    )


async def test_the_next_client_sends_the_spool_of_the_last(
    own_broker: Broker, tmp_path: Path
) -> None:
    model = new_model()
    assert own_broker.process
    own_broker.process.send_signal(signal.SIGSTOP)
    try:
        with Client(bootstrap_servers=own_broker.bootstrap_servers, spool=tmp_path) as ratchet:
            ids = [ratchet.record_feedback(**feedback(model)) for _ in range(10)]
            started = time.monotonic()
            ratchet.close(seconds=0.5)
            assert time.monotonic() - started < 5
    finally:
        own_broker.process.send_signal(signal.SIGCONT)
    with Client(bootstrap_servers=own_broker.bootstrap_servers, spool=tmp_path) as ratchet:
        assert ratchet.flush(seconds=20)
    assert first_seen(await received(own_broker.bootstrap_servers, model, 10)) == ids


RECORDING = """
import sys, time
from ratchet_client import Client
broker, spool, model = sys.argv[1:]
ratchet = Client(bootstrap_servers=broker, spool=spool, safe_within=0.3)
while True:
    event_id = ratchet.record_feedback(
        model=model, input="q", output="a", feedback_type="accepted", user_id="ada"
    )
    print(time.monotonic(), event_id, flush=True)
    time.sleep(0.002)
"""


def record_and_die(broker: str, spool: Path, model: str) -> tuple[list[tuple[float, str]], float]:
    """Run a process that records events, and kill it after two seconds.

    Returns the time and id of each recorded event, and the time of the kill.
    """
    command = [sys.executable, "-c", RECORDING, broker, str(spool), model]
    with subprocess.Popen(
        command,
        env=os.environ | {"PYTHONPATH": "clients/python"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        lines: list[tuple[float, str]] = []
        while not lines or time.monotonic() - lines[0][0] < 2.0:
            at, event_id = process.stdout.readline().split()
            lines.append((float(at), event_id))
        process.kill()
    return lines, time.monotonic()


@pytest.mark.parametrize("broker_state", ["there", "away"])
async def test_kill_9_loses_only_the_youngest_events(
    own_broker: Broker, tmp_path: Path, broker_state: str
) -> None:
    model = new_model()
    assert own_broker.process
    own_broker.process.send_signal(signal.SIGSTOP if broker_state == "away" else signal.SIGCONT)
    try:
        recorded, died = await asyncio.to_thread(
            record_and_die, own_broker.bootstrap_servers, tmp_path, model
        )
    finally:
        own_broker.process.send_signal(signal.SIGCONT)
    # The bound does not include the time of the disk and the scheduler.
    safe = [event_id for at, event_id in recorded if at < died - 0.3 - 0.5]
    assert len(safe) > 100
    with Client(bootstrap_servers=own_broker.bootstrap_servers, spool=tmp_path) as ratchet:
        assert ratchet.flush(seconds=20)
    received_ids = {
        event.event_id
        for event in await received(own_broker.bootstrap_servers, model, len(recorded), seconds=2)
    }
    assert not set(safe) - received_ids
    lost = [at for at, event_id in recorded if event_id not in received_ids]
    print(
        f"broker {broker_state}: {len(recorded)} recorded, {len(lost)} lost, the oldest "
        f"{died - min(lost, default=died):.3f} s old"
    )


def test_a_full_buffer_drops_and_counts(tmp_path: Path) -> None:
    with Client(
        bootstrap_servers="127.0.0.1:1", spool=None, buffer_bytes=3000, spool_bytes=3000
    ) as ratchet:
        for _ in range(20):
            ratchet.record_feedback(**feedback("m"))
        counts = ratchet.counts
        assert counts.recorded + counts.dropped["buffer_full"] == 20
        ratchet.close(seconds=0.1)
    assert sum(ratchet.counts.dropped.values()) == 20, ratchet.counts


def test_an_unclosed_client_loses_nothing(tmp_path: Path) -> None:
    program = f"""
from ratchet_client import Client
ratchet = Client(url="http://127.0.0.1:1", spool={str(tmp_path)!r})
ratchet.record_feedback(model="m", input="q", output="a", feedback_type="accepted", event_id="e1")
"""
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": "clients/python"},
        timeout=60,
        check=True,
    )
    assert result.returncode == 0
    (target,) = tmp_path.iterdir()
    spool = DiskSpool(target, 1 << 20)
    assert [record.event_id for record in spool.peek(10, 1 << 20)[0]] == ["e1"]
    spool.close()


def test_a_forked_child_is_refused(tmp_path: Path) -> None:
    with Client(url="http://127.0.0.1:1", spool=tmp_path) as ratchet:
        child = os.fork()
        if not child:
            try:
                ratchet.record_feedback(**feedback("m"))
            except RuntimeError as error:
                os._exit(7 if "fork" in str(error) else 8)
            os._exit(9)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        ratchet.close(seconds=0.1)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, "either bootstrap_servers or url"),
        ({"url": "http://h", "bootstrap_servers": "h:1"}, "either bootstrap_servers or url"),
        ({"bootstrap_servers": "h:1", "token": "t"}, "token requires url"),
        ({"url": "h:1"}, "expected a URL"),
    ],
)
def test_conflicting_arguments_are_refused(settings: dict[str, str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Client(**settings)  # type: ignore[arg-type]  # the tested mistake
