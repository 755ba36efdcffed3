"""Failpoints: named places between two durable steps at which a process dies, pauses or fails when
it is told to.

For tests of what survives a fault, never for production. Off unless RATCHET_FAILPOINTS orders them
when the process starts:

    dataset.announced=kill@3, stream.delivered=pause:20, dataset.data_written=fail

- `kill` waits until what was sent before has arrived, then ends the process as kill -9 does;
- `pause:SECONDS` stops the whole process at once, heartbeats included, by SIGSTOP, and lets it go
  on by SIGCONT;
- `stall:SECONDS` holds up this place alone: the event loop, or one thread beside it; heartbeats and
  health go on;
- `fail` raises Unavailable, as a bus or a store does that is away.

Each happens once, when the place is reached for the N-th time (`@N`, 1 without). A place that is
not ordered costs a look-up.
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

Service = Literal["feedback", "dataset", "trainer"]
Action = Literal["kill", "pause", "stall", "fail"]


@dataclass(frozen=True, slots=True)
class Failpoint:
    """One row of the catalogue. `done` is durable when the place is reached, `open` is not."""

    name: str
    services: tuple[Service, ...]
    durable: str
    not_durable: str


FAILPOINTS: tuple[Failpoint, ...] = (
    Failpoint("feedback.scored", ("feedback",), "the events before", "the scored event"),
    Failpoint(
        "dataset.recovering",
        ("dataset",),
        "what a crash left",
        "the members of a batch that do not know of it",
    ),
    Failpoint("dataset.decided", ("dataset",), "the events before", "the event's entry"),
    Failpoint("dataset.entry_sent", ("dataset",), "the event's entry", "the batch that it fills"),
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
        "what is counted of it, and the offset",
    ),
    Failpoint(
        "stream.delivered",
        ("feedback", "dataset"),
        "all that an event caused",
        "the event's offset",
    ),
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
        "the one that is being written (in the child)",
    ),
    Failpoint(
        "trainer.child_written",
        ("trainer",),
        "the adapter's files",
        "the record of them (in the child)",
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
"""In the order in which a service comes by them."""

NAMES = tuple(row.name for row in FAILPOINTS)

_ORDER = re.compile(
    r"(?P<name>[\w.]+)=(?P<action>\w+)(:(?P<seconds>\d+(\.\d+)?))?(@(?P<at>[1-9]\d*))?"
)
_ACTIONS = "kill, pause:SECONDS, stall:SECONDS or fail"
_ARRIVAL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class FailpointTrigger:
    """What is to happen where: at the `at`-th time that the place is reached. `seconds` is the
    length of a pause, 0 otherwise.
    """

    name: str
    action: Action
    seconds: float
    at: int


def parse_failpoints(text: str) -> tuple[FailpointTrigger, ...]:
    """The orders in a setting. Raises ValueError saying what was expected."""
    return tuple(_order(part.strip()) for part in text.split(",") if part.strip())


FailpointSetting = Annotated[
    tuple[FailpointTrigger, ...],
    NoDecode,
    BeforeValidator(parse_failpoints),
    Field(
        validate_default=False, description="for tests only: where to die, pause or fail on purpose"
    ),
]
"""The setting `failpoints` of a service."""


def arm(triggers: Iterable[FailpointTrigger], log: Log) -> None:
    """Carry out `orders` in this process from now on, and no others; called once, by the
    composition root.
    """
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
    """A place in a coroutine."""
    if name in _armed:
        for order in _due(name):
            if order.action == "kill":
                await asyncio.sleep(_ARRIVAL_SECONDS)
            _carry_out(order)


def reach_in_thread(name: str) -> None:
    """A place in a thread beside the event loop."""
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
    """The orders whose time has come, now that `name` is reached once more."""
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
        # A process that is stopped cannot wake itself.
        subprocess.Popen(["/bin/sh", "-c", f"sleep {order.seconds}; kill -CONT {os.getpid()}"])
        os.kill(os.getpid(), signal.SIGSTOP)
    elif order.action == "stall":
        time.sleep(order.seconds)
    else:
        raise Unavailable(f"failpoint {order.name}")


def _order(text: str) -> FailpointTrigger:
    found = _ORDER.fullmatch(text)
    if found is None:
        raise ValueError(
            f"expected name=action with an action of {_ACTIONS}, and @N where wanted; found "
            f"{text!r}"
        )
    name, action, seconds = found["name"], found["action"], found["seconds"]
    if name not in NAMES:
        raise ValueError(f"there is no failpoint {name!r}; there are {', '.join(NAMES)}")
    if action not in get_args(Action) or (action in ("pause", "stall")) != (seconds is not None):
        raise ValueError(f"expected {_ACTIONS} after {name}=, found {text!r}")
    return FailpointTrigger(name, cast(Action, action), float(seconds or 0), int(found["at"] or 1))
