"""Runs broker, serving and the four services on this machine until Ctrl-C, for `ratchet up` and the
demo.
"""

import asyncio
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import fields
from pathlib import Path
from typing import Any

from ratchet.kafka_admin.topics import apply_topics, wait_for_group_coordinator
from ratchet.local_stack.bases import SMOLLM2
from ratchet.local_stack.broker import Broker
from ratchet.local_stack.ports import require_free
from ratchet.local_stack.processes import (
    SAVING_SECONDS,
    Ports,
    ProcessSpec,
    StackLayout,
    process_specs,
)
from ratchet.local_stack.supervisor import Supervisor, WriteLine
from ratchet.local_stack.token_store import ensure_tokens_file
from shared.clock import SystemClock
from shared.config.models import load_models
from shared.errors import Misconfigured
from shared.kafka.security import PLAINTEXT, Security, kafka_variables
from shared.python_command import module_command

SAME_SIGNAL_SECONDS = 1.0
"""Signals so close together are one request to stop: shells and wrappers forward what their
children have received as well.
"""

OnReady = Callable[[Supervisor], Awaitable[None]]


async def run_stack(
    layout: StackLayout,
    ports: Ports,
    bootstrap_servers: str | None,
    write_line: WriteLine,
    on_ready: OnReady,
    security: Security = PLAINTEXT,
    *,
    patient: bool = False,
) -> None:
    """Start the stack, call `on_ready` when all processes are ready, and stop the stack when it
    returns. With `patient`, it waits for them without limit.

    A later run on the same folder continues from its state. Raises Misconfigured if a port is taken
    or a model file is invalid, Unavailable if a process is neither ready nor makes progress.
    """
    models = load_models(layout.models)
    _require_ports(ports, own_broker=bootstrap_servers is None)
    # The state has feedback, tokens and models. The processes inherit the mask.
    os.umask(0o077)
    layout.state.mkdir(parents=True, exist_ok=True)
    layout.state.chmod(0o700)
    ensure_tokens_file(layout.state)
    if any(model.base.training == SMOLLM2 for model in models.files.values()):
        await asyncio.to_thread(_prepare_base, layout.bases, write_line)
    clock = SystemClock()
    broker = (
        None
        if bootstrap_servers
        else Broker(layout.state / "kafka", ports.kafka, ports.kafka_controller, clock)
    )
    # A stop waits for the running training step, unless the user has set another limit.
    environment = {"RATCHET_STOP_SECONDS": str(SAVING_SECONDS)} | os.environ  # noqa: TID251 (passed on to the processes, whose settings it contains)
    if broker:
        # Security settings of another Kafka do not apply to the embedded one, which has no
        # authentication.
        environment = {
            name: value for name, value in environment.items() if name not in kafka_variables()
        }
    supervisor = Supervisor(environment, write_line, clock)
    try:
        if broker:
            write_line("ratchet", "starting Apache Kafka")
            await asyncio.to_thread(broker.start)
            bootstrap_servers = broker.bootstrap_servers
        assert bootstrap_servers is not None
        applied = await apply_topics(bootstrap_servers, security=security)
        await wait_for_group_coordinator(bootstrap_servers, security=security)
        write_line(
            "ratchet",
            f"Kafka at {bootstrap_servers}: {len(applied.created)} topics created, "
            f"{len(applied.present)} present",
        )
        specs = process_specs(layout, ports, bootstrap_servers)
        for spec in specs:
            await supervisor.start(spec)
        await _first_to_end(supervisor.watch(), _when_ready(supervisor, specs, on_ready, patient))
    finally:
        write_line("ratchet", "stopping")
        await supervisor.stop()
        if broker:
            await asyncio.to_thread(broker.stop)
        write_line("ratchet", "stopped")


def run_until_interrupted(work: Coroutine[Any, Any, None]) -> bool:
    """Run `work`; cancel it on Ctrl-C, SIGTERM or a closed terminal, so that it stops what it
    started. A second Ctrl-C or SIGTERM cancels it again, so that it does not wait for that.

    Returns False if it was cancelled.
    """

    async def run() -> bool:
        loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)
        interrupted_at: float | None = None

        def interrupt(number: signal.Signals) -> None:
            nonlocal interrupted_at
            if interrupted_at is None:
                interrupted_at = loop.time()
                task.cancel()
            elif number != signal.SIGHUP and loop.time() - interrupted_at > SAME_SIGNAL_SECONDS:
                task.cancel()

        under_nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        for number in (
            (signal.SIGINT, signal.SIGTERM)
            if under_nohup
            else (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        ):
            loop.add_signal_handler(number, interrupt, number)
        try:
            await task
        except asyncio.CancelledError:
            return False
        return True

    return asyncio.run(run())


async def _first_to_end(*works: Coroutine[Any, Any, None]) -> None:
    """Run all until the first ends, then cancel the others. Raises the error of the first."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _when_ready(
    supervisor: Supervisor, specs: tuple[ProcessSpec, ...], started: OnReady, patient: bool
) -> None:
    await supervisor.wait_ready(specs, patient=patient)
    await started(supervisor)


def _require_ports(ports: Ports, *, own_broker: bool) -> None:
    for port in fields(ports):
        if own_broker or not port.name.startswith("kafka"):
            require_free(
                getattr(ports, port.name),
                port.name.replace("_", " "),
                f"--{port.name.replace('_', '-')}-port",
            )


def _prepare_base(bases: Path, line: WriteLine) -> None:
    """Prepare the base in a separate process, to release the memory that the conversion needs."""
    if (bases / SMOLLM2 / "model.gguf").exists():
        return
    line("ratchet", f"preparing the base model {SMOLLM2} (once, about a minute)")
    process = subprocess.run(
        module_command("ratchet.local_stack.bases", str(bases)),
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        raise Misconfigured(
            f"the base model could not be prepared:\n{process.stderr.strip()[-2000:]}"
        )
