"""Reads the committed dashboards."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.observability.metrics import CATALOGUE

FOLDER = Path("deploy/grafana/dashboards")
NAMES = ("overview", "streams", "training", "serving")

PROCESS_METRICS = frozenset(
    {"process_resident_memory_bytes", "process_cpu_seconds_total", "process_start_time_seconds"}
)
"""Metrics of the Prometheus client library."""

NOT_SHOWN: dict[str, str] = {
    "ratchet_service_live": "`ratchet_service_ready` includes it, and the cluster acts on liveness",
    "faust_messages_received_total": "the dashboards show received feedback by kind",
    "faust_messages_sent_total": "changelog records follow the decisions, which are shown",
    "faust_events_total": "the dashboards show received feedback by kind",
    "faust_send_errors_total": "a failed delivery stops the service, which is shown",
    "ratchet_registry_webhooks_total": "exported only where webhooks are declared",
    "faust_rebalance_seconds": "rebalances and the time without progress are shown",
}
"""Metrics without a panel, with the reason."""

_METRIC = re.compile(r"\b(?:ratchet|faust|process)_\w+")
_HISTOGRAMS = {row.name for row in CATALOGUE if row.kind == "histogram"}


@dataclass(frozen=True)
class PanelQuery:
    """A query and its panel."""

    where: str
    expr: str
    legend: str
    instant: bool

    @property
    def metrics(self) -> set[str]:
        """Names of the metrics in the query."""
        return {_family(name) for name in _METRIC.findall(self.expr)}

    @property
    def legend_labels(self) -> set[str]:
        """Labels in the legend."""
        return set(re.findall(r"{{(\w+)}}", self.legend))


def read(name: str) -> dict[str, Any]:
    board: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return board


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the panels that are not rows."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def queries(board: dict[str, Any]) -> Iterator[PanelQuery]:
    """Yield the queries of panels and annotations."""
    for panel in panels(board):
        for target in panel["targets"]:
            where = f"{board['title']}: {panel['title']} {target['refId']}"
            yield PanelQuery(
                where, target["expr"], target.get("legendFormat", ""), bool(target.get("instant"))
            )
    for annotation in board["annotations"]["list"]:
        yield PanelQuery(
            f"{board['title']}: {annotation['name']}",
            annotation["expr"],
            annotation["titleFormat"],
            instant=False,
        )


def variables(board: dict[str, Any]) -> dict[str, str]:
    """Return the queries of the query variables, by name."""
    return {
        variable["name"]: variable["query"]["query"]
        for variable in board["templating"]["list"]
        if variable["type"] == "query"
    }


def _family(name: str) -> str:
    whole = name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count")
    return whole if whole in _HISTOGRAMS else name
