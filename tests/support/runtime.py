"""A runtime bundle for tests: a manual clock, separate metrics, and no tracing."""

from datetime import UTC, datetime

from shared.clock import Clock, ManualClock
from shared.logs import Log, configure
from shared.observability.health import Health
from shared.observability.metrics import Metrics
from shared.observability.tracing import NOOP_TRACING, Tracing
from shared.service.runtime import Runtime


def runtime_of(
    service: str = "test",
    clock: Clock | None = None,
    metrics: Metrics | None = None,
    health: Health | None = None,
    log: Log | None = None,
    tracing: Tracing = NOOP_TRACING,
) -> Runtime:
    """Return a bundle; parts that are not given are new."""
    clock = clock or ManualClock(datetime(2026, 9, 1, 9, 0, tzinfo=UTC))
    return Runtime(
        service,
        clock,
        log or configure("test", "warning", "text"),
        metrics or Metrics(service),
        health or Health(clock),
        tracing,
    )
