"""The committed dashboards are up to date, documented, and query exported metrics only."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.__main__ import dashboard_files
from shared.observability.metrics import CATALOGUE
from tests.grafana.dashboards import (
    FOLDER,
    NAMES,
    NOT_SHOWN,
    PROCESS_METRICS,
    panels,
    queries,
    read,
    variables,
)
from tests.support.programs import require_program

PROVISIONING = Path("deploy/grafana/provisioning")


@pytest.fixture(params=NAMES)
def board(request: pytest.FixtureRequest) -> dict[str, Any]:
    return read(request.param)


def test_committed_dashboards_are_up_to_date() -> None:
    committed = {path.name: path.read_text() for path in FOLDER.iterdir()}
    assert committed == dashboard_files(), "run: python -m deploy.grafana"
    assert set(committed) == {f"{name}.json" for name in NAMES}


def test_dashboards_match_the_grafana_schema(board: dict[str, Any]) -> None:
    """All fields are known to Grafana's schema, except in panels, whose types it leaves open."""
    parsed = Dashboard.from_json(board).to_json()
    assert set(board) == set(parsed)
    assert board["schemaVersion"] == parsed["schemaVersion"]


def test_a_dashboard_has_variables_annotations_and_links(board: dict[str, Any]) -> None:
    assert [variable["name"] for variable in board["templating"]["list"]] == [
        "datasource",
        "namespace",
        "model",
    ]
    assert set(variables(board)) == {"namespace", "model"}
    assert [annotation["name"] for annotation in board["annotations"]["list"]] == [
        "Promotions",
        "Rollbacks",
    ]
    assert [link["tags"] for link in board["links"]] == [["ratchet"]]
    assert board["tags"] == ["ratchet"]
    assert board["uid"].startswith("ratchet-")


def test_every_panel_is_described(board: dict[str, Any]) -> None:
    board_panels = panels(board)
    assert len(board_panels) >= 15
    for panel in board_panels:
        assert panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"].get("unit") or panel["type"] == "heatmap", panel[
            "title"
        ]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]


def test_panels_fill_the_grid_without_overlap(board: dict[str, Any]) -> None:
    """24 columns, no overlap, full lines, unique ids."""
    occupied: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        position = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(position["x"], position["x"] + position["w"])
            for y in range(position["y"], position["y"] + position["h"])
        }
        assert not cells & occupied, panel["title"]
        assert position["x"] + position["w"] <= 24
        occupied |= cells
    lines = {y for _, y in occupied}
    assert lines == set(range(len(lines)))
    assert {y for y in lines if sum((x, y) in occupied for x in range(24)) < 24} == set()
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_the_first_row_is_the_summary(board: dict[str, Any]) -> None:
    first, *panels_below = board["panels"]
    assert first["type"] == "row"
    assert first["title"] == "Summary"
    answers = [panel for panel in panels_below if panel["gridPos"]["y"] == 1]
    assert {panel["type"] for panel in answers} == {"stat"}
    assert all(panel["fieldConfig"]["defaults"]["noValue"] for panel in answers)


def test_every_query_uses_exported_metrics(board: dict[str, Any]) -> None:
    exported = {row.name for row in CATALOGUE}
    board_queries = list(queries(board))
    assert len(board_queries) > len(panels(board))
    for query in board_queries:
        assert query.metrics, query
        assert query.metrics <= exported | PROCESS_METRICS, query


def test_every_metric_has_a_panel_or_a_reason() -> None:
    shown = {metric for name in NAMES for query in queries(read(name)) for metric in query.metrics}
    assert {row.name for row in CATALOGUE} - shown - set(NOT_SHOWN) == set()
    assert not shown & set(NOT_SHOWN)


def test_prometheus_parses_every_query(tmp_path: Path) -> None:
    """As recording rules, which promtool checks."""
    filled = {
        "$namespace": "here",
        "$model": ".+",
        "$__rate_interval": "1m",
        "$__interval": "15s",
        "$__range": "6h",
    }
    rules = []
    for index, query in enumerate(query for name in NAMES for query in queries(read(name))):
        expr = query.expr
        for name, value in filled.items():
            expr = expr.replace(name, value)
        assert "$" not in expr
        rules.append({"record": f"query:{index}", "expr": expr})
    assert len(rules) > 80
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": rules}]}))
    checked = subprocess.run(
        [require_program("promtool"), "check", "rules", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(rules)} rules found" in checked.stdout


def test_provisioning_names_data_source_and_dashboards() -> None:
    (source,) = yaml.safe_load((PROVISIONING / "datasources.yaml").read_text())["datasources"]
    assert (source["type"], source["url"]) == ("prometheus", "${PROMETHEUS_URL}")
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards.yaml").read_text())["providers"]
    assert (provider["type"], provider["options"]["path"]) == ("file", "${RATCHET_DASHBOARDS}")
