"""The committed dashboards, as a reader sees them."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.observability.metrics import CATALOGUE

FOLDER = Path("deploy/grafana/dashboards")
NAMES = ("overview", "streams", "training", "serving")

OF_EVERY_PROCESS = frozenset(
    {"process_resident_memory_bytes", "process_cpu_seconds_total", "process_start_time_seconds"}
)
"""What Prometheus's own client exports."""

NOT_SHOWN: dict[str, str] = {
    "ratchet_service_live": "`ratchet_service_ready` says as much, and liveness is the cluster's to act on",
    "faust_messages_received_total": "what the streams take is shown by kind, not by Faust's count",
    "faust_messages_sent_total": "the changelog's records follow the decisions, which are shown",
    "faust_events_total": "as above",
    "faust_send_errors_total": "a delivery that fails ends the service, which is shown",
    "faust_rebalance_seconds": "the rebalances are shown, and how long nothing moves",
}
"""Metrics that no panel asks for, and why."""

_METRIC = re.compile(r"\b(?:ratchet|faust|process)_\w+")
_HISTOGRAMS = {row.name for row in CATALOGUE if row.kind == "histogram"}


@dataclass(frozen=True)
class Asked:
    """A query, and where it stands."""

    where: str
    expr: str
    legend: str
    now: bool

    @property
    def metrics(self) -> set[str]:
        """The names of the metrics that it asks for."""
        return {_family(name) for name in _METRIC.findall(self.expr)}

    @property
    def named(self) -> set[str]:
        """The labels that its legend takes."""
        return set(re.findall(r"{{(\w+)}}", self.legend))


def read(name: str) -> dict[str, Any]:
    board: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return board


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    """Those that show something."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def queries(board: dict[str, Any]) -> Iterator[Asked]:
    """Of panels and annotations."""
    for panel in panels(board):
        for target in panel["targets"]:
            where = f"{board['title']}: {panel['title']} {target['refId']}"
            yield Asked(
                where, target["expr"], target.get("legendFormat", ""), bool(target.get("instant"))
            )
    for mark in board["annotations"]["list"]:
        yield Asked(
            f"{board['title']}: {mark['name']}", mark["expr"], mark["titleFormat"], now=False
        )


def variables(board: dict[str, Any]) -> dict[str, str]:
    """The queries of variables that ask for labels."""
    return {
        found["name"]: found["query"]["query"]
        for found in board["templating"]["list"]
        if found["type"] == "query"
    }


def _family(name: str) -> str:
    whole = name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count")
    return whole if whole in _HISTOGRAMS else name
