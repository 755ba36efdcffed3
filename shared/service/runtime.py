"""Runtime: the ports that every part of a service's shell needs, passed as one value."""

from dataclasses import dataclass

from shared.clock import Clock
from shared.logs import Log
from shared.observability.health import Health
from shared.observability.metrics import Metrics
from shared.observability.tracing import NOOP_TRACING, Tracing


@dataclass(frozen=True, slots=True)
class Runtime:
    """Clock, log, metrics, health and tracing of one service process. Built in its `__main__`."""

    service: str
    clock: Clock
    log: Log
    metrics: Metrics
    health: Health
    tracing: Tracing = NOOP_TRACING
