"""Failpoints: named points between two durable steps at which a process dies, pauses or fails on
demand.

For tests of fault tolerance, never for production. Off unless RATCHET_FAILPOINTS sets them when the
process starts:

    dataset.announced=kill@3, stream.delivered=pause:20, dataset.data_written=fail

- `kill` waits until previous sends have arrived, then ends the process like kill -9;
- `pause:SECONDS` stops the whole process, heartbeats included, with SIGSTOP, and continues it with
  SIGCONT;
- `stall:SECONDS` blocks the event loop or the one thread that reached the failpoint; heartbeats and
  health continue;
- `fail` raises Unavailable, like an unavailable bus or store.

Each triggers once, when the failpoint is reached for the N-th time (`@N`, default 1). A failpoint
without a trigger costs a dictionary look-up.
"""

import asyncio
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal, cast, get_args

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode

from shared.errors import Unavailable
from shared.logs import Log

Service = Literal["feedback", "dataset", "builder", "trainer"]
Action = Literal["kill", "pause", "stall", "fail"]


@dataclass(frozen=True, slots=True)
class Failpoint:
    """One row of the catalogue. `durable` is stored when the failpoint is reached, `not_durable` is
    not.
    """

    name: str
    services: tuple[Service, ...]
    durable: str
    not_durable: str


FAILPOINTS: tuple[Failpoint, ...] = (
    Failpoint("feedback.scored", ("feedback",), "the events before", "the scored event"),
    Failpoint(
        "dataset.recovering",
        ("dataset",),
        "the state that a crash left",
        "the membership of a batch's remaining events",
    ),
    Failpoint("dataset.decided", ("dataset",), "the events before", "the event's entry"),
    Failpoint(
        "dataset.entry_sent", ("dataset",), "the event's entry", "the batch that it completes"
    ),
    Failpoint("dataset.data_written", ("dataset",), "the batch's data files", "its manifest"),
    Failpoint(
        "dataset.manifest_written", ("dataset",), "its manifest", "its own record in the table"
    ),
    Failpoint(
        "dataset.batch_recorded", ("dataset",), "its own record in the table", "its announcement"
    ),
    Failpoint("dataset.announced", ("dataset",), "its announcement", "the entries of its members"),
    Failpoint(
        "dataset.member_sent", ("dataset",), "the entry of a member", "those of the next members"
    ),
    Failpoint(
        "dataset.batch_closed",
        ("dataset",),
        "the entries of its members",
        "the batch's metrics, and the offset",
    ),
    Failpoint(
        "stream.delivered",
        ("feedback", "dataset"),
        "all records that an event caused",
        "the event's offset",
    ),
    Failpoint(
        "builder.recorded", ("builder",), "the batch and its recorded announcement", "its event"
    ),
    Failpoint("builder.announced", ("builder",), "the batch's event", "the answer"),
    Failpoint("builder.answered", ("builder",), "the answer", "the offset"),
    Failpoint("trainer.planned", ("trainer",), "the plan of a run", "its first step"),
    Failpoint(
        "trainer.heard_step",
        ("trainer",),
        "the checkpoints before",
        "the steps since the last of them",
    ),
    Failpoint(
        "trainer.child_saving",
        ("trainer",),
        "the checkpoints before",
        "the checkpoint being written (in the training process)",
    ),
    Failpoint(
        "trainer.child_written",
        ("trainer",),
        "the adapter's files",
        "their record (in the training process)",
    ),
    Failpoint("trainer.trained", ("trainer",), "the adapter and its record", "its evaluation"),
    Failpoint("trainer.recorded", ("trainer",), "the outcome, on this machine", "its event"),
    Failpoint(
        "trainer.published",
        ("trainer",),
        "the outcome's event",
        "the registry's answer, and the offset",
    ),
    Failpoint("trainer.ended", ("trainer",), "the registry's answer", "the offset"),
)
"""In the order in which a service reaches them."""

NAMES = tuple(row.name for row in FAILPOINTS)

_TRIGGER = re.compile(
    r"(?P<name>[\w.]+)=(?P<action>\w+)(:(?P<seconds>\d+(\.\d+)?))?(@(?P<at>[1-9]\d*))?"
)
_ACTIONS = "kill, pause:SECONDS, stall:SECONDS or fail"
_ARRIVAL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class FailpointTrigger:
    """An action at a failpoint, on its `at`-th visit. `seconds` is the length of a pause or stall,
    else 0.
    """

    name: str
    action: Action
    seconds: float
    at: int


def parse_failpoints(text: str) -> tuple[FailpointTrigger, ...]:
    """Parse the setting. Raises ValueError with the expected form."""
    return tuple(_trigger(part.strip()) for part in text.split(",") if part.strip())


FailpointSetting = Annotated[
    tuple[FailpointTrigger, ...],
    NoDecode,
    BeforeValidator(parse_failpoints),
    Field(
        validate_default=False,
        description="for tests only: failpoints to trigger, as name=action[:seconds][@N]",
    ),
]
"""The setting `failpoints` of a service."""


def arm(triggers: Iterable[FailpointTrigger], log: Log) -> None:
    """Activate these triggers and no others; called once, by the composition root."""
    _armed.clear()
    for order in triggers:
        log.warning(
            "FAILPOINT: this process will fail on purpose",
            at=order.name,
            action=order.action,
            time=order.at,
        )
        _armed.setdefault(order.name, []).append(_ArmedTrigger(order, log))


async def reach(name: str) -> None:
    """Mark a failpoint in a coroutine."""
    if name in _armed:
        for order in _due(name):
            if order.action == "kill":
                await asyncio.sleep(_ARRIVAL_SECONDS)
            _carry_out(order)


def reach_in_thread(name: str) -> None:
    """Mark a failpoint in a thread other than the event loop's."""
    if name in _armed:
        for order in _due(name):
            if order.action == "kill":
                time.sleep(_ARRIVAL_SECONDS)
            _carry_out(order)


@dataclass(slots=True)
class _ArmedTrigger:
    order: FailpointTrigger
    log: Log
    reached: int = 0


_armed: dict[str, list[_ArmedTrigger]] = {}
"""By name. Global, as an argument through every constructor would make what only tests need a part
of every signature.
"""


def _due(name: str) -> list[FailpointTrigger]:
    """Count a visit of the failpoint `name`; return the triggers that are due."""
    due = []
    for armed in _armed[name]:
        armed.reached += 1
        if armed.reached == armed.order.at:
            armed.log.warning(
                "FAILPOINT reached", at=name, action=armed.order.action, time=armed.reached
            )
            due.append(armed.order)
    return due


def _carry_out(order: FailpointTrigger) -> None:
    if order.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif order.action == "pause":
        # A stopped process cannot resume itself.
        subprocess.Popen(["/bin/sh", "-c", f"sleep {order.seconds}; kill -CONT {os.getpid()}"])
        os.kill(os.getpid(), signal.SIGSTOP)
    elif order.action == "stall":
        time.sleep(order.seconds)
    else:
        raise Unavailable(f"failpoint {order.name}")


def _trigger(text: str) -> FailpointTrigger:
    match = _TRIGGER.fullmatch(text)
    if match is None:
        raise ValueError(
            f"expected name=action with an action of {_ACTIONS}, optionally followed by @N; "
            f"found {text!r}"
        )
    name, action, seconds = match["name"], match["action"], match["seconds"]
    if name not in NAMES:
        raise ValueError(f"unknown failpoint {name!r}; expected one of {', '.join(NAMES)}")
    if action not in get_args(Action) or (action in ("pause", "stall")) != (seconds is not None):
        raise ValueError(f"expected {_ACTIONS} after {name}=, found {text!r}")
    return FailpointTrigger(name, cast(Action, action), float(seconds or 0), int(match["at"] or 1))
