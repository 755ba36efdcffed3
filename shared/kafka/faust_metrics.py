"""Faust's own counters as Prometheus metrics, with one prefix and in base units.

Faust's Prometheus sensor is not used: it observes each event once more, in milliseconds, and counts
events that Ratchet commits itself as open. This collector reads Faust's monitor at each scrape.
"""

from collections import deque
from collections.abc import Collection, Iterator
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from shared.observability.metrics import CATALOGUE, FAUST_PREFIX


class FaustMonitor(Protocol):
    """The attributes of `faust.Monitor` that are read."""

    messages_received_total: int
    events_total: int
    events_active: int
    messages_sent: int
    send_errors: int
    send_latency: deque[float]
    rebalances: int
    rebalance_end_latency: deque[float]


class FaustMetrics(Collector):
    """Collector of the catalogue's Faust rows."""

    def __init__(self, monitor: FaustMonitor) -> None:
        self._monitor = monitor

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        values = self._values()
        for row in CATALOGUE:
            if row.name.startswith(FAUST_PREFIX):
                family = CounterMetricFamily if row.kind == "counter" else GaugeMetricFamily
                yield family(row.name, row.description, value=values[row.name])

    def _values(self) -> dict[str, float]:
        monitor = self._monitor
        return {
            "faust_messages_received_total": monitor.messages_received_total,
            "faust_events_total": monitor.events_total,
            "faust_events_active": monitor.events_active,
            "faust_messages_sent_total": monitor.messages_sent,
            "faust_send_errors_total": monitor.send_errors,
            "faust_send_seconds": _mean(tuple(monitor.send_latency)),
            "faust_rebalances_total": monitor.rebalances,
            "faust_rebalance_seconds": _mean(tuple(monitor.rebalance_end_latency)),
        }


def _mean(seconds: Collection[float]) -> float:
    return sum(seconds) / len(seconds) if seconds else 0.0
