"""Every alert is tested on series that raise it and on series that do not, uses exported metrics,
and has a runbook.
"""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from ratchet.local_stack.processes import Ports
from shared.observability.metrics import CATALOGUE
from tests.monitoring.rule_files import (
    CASES,
    FOLDER,
    RUNBOOKS,
    alerts,
    known_metrics,
    metrics_of,
    recorded,
    rules,
)
from tests.support.programs import require_program

ALERTS = alerts()
OBJECTIVES = ("feedback-accepted", "verdict-in-time", "serving-correct")


def promtool(*arguments: str | Path) -> str:
    process = subprocess.run(
        [require_program("promtool"), *arguments], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def cases(name: str) -> list[dict[str, Any]]:
    """Return the expected alerts of each evaluation time."""
    tests = yaml.safe_load((CASES / f"{name}.yaml").read_text(encoding="utf-8"))["tests"]
    return [case for test in tests for case in test["alert_rule_test"]]


def test_prometheus_accepts_configuration_and_rules() -> None:
    output = promtool("check", "config", FOLDER / "prometheus.yaml")
    assert "3 rule files found" in output
    assert sum(int(count) for count in re.findall(r"(\d+) rules found", output)) == len(
        list(rules())
    )


def test_prometheus_scrapes_the_ports_of_ratchet_up() -> None:
    (job,) = yaml.safe_load((FOLDER / "prometheus.yaml").read_text(encoding="utf-8"))[
        "scrape_configs"
    ]
    targets = {static["labels"]["service"]: static["targets"] for static in job["static_configs"]}
    ports = Ports()
    assert job["job_name"] == "ratchet"
    assert targets == {
        service: [f"127.0.0.1:{getattr(ports, service)}"]
        for service in ("feedback", "dataset", "builder", "trainer", "registry")
    }


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_fires_only_on_its_condition(name: str) -> None:
    expected = cases(name)
    assert {case["alertname"] for case in expected} == {name}
    assert any(case["exp_alerts"] for case in expected)
    assert any(not case["exp_alerts"] for case in expected)
    assert "SUCCESS" in promtool("test", "rules", CASES / f"{name}.yaml")


def test_every_alert_has_cases() -> None:
    assert len(ALERTS) >= 20
    assert {path.stem for path in CASES.iterdir()} == set(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_has_severity_summary_and_runbook(name: str) -> None:
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    assert alert["annotations"]["summary"]
    page = Path(alert["annotations"]["runbook_url"])
    assert page.parent == RUNBOOKS
    title, *_ = page.read_text(encoding="utf-8").splitlines()
    assert name in title.removeprefix("# ").split(", ")


def test_rules_use_known_metrics() -> None:
    used = set()
    for rule in rules():
        names = metrics_of(rule["expr"])
        assert names or rule["expr"].startswith("vector("), rule
        assert names <= known_metrics(), rule
        used |= names
    assert recorded() <= used, "a recording rule is unused"
    assert len(used & {row.name for row in CATALOGUE}) >= 15


def test_rule_selectors_use_labels_of_the_catalogue() -> None:
    """A selector on a missing label would silently match nothing."""
    labels = {row.name: set(row.labels) for row in CATALOGUE}
    selectors = 0
    for rule in rules():
        for name, selector in re.findall(r"\b((?:ratchet|faust)_\w+)\{([^}]*)\}", rule["expr"]):
            family = re.sub(r"_(bucket|sum|count)$", "", name) if name not in labels else name
            assert set(re.findall(r"(\w+)\s*[=!]", selector)) - {"le"} <= labels[family], rule
            selectors += 1
    assert selectors >= 10


def test_burn_rates_follow_the_workbook() -> None:
    """Over 30 days: 2 % of the budget in an hour, 5 % in six, 10 % in three days; and a short
    window of a twelfth of each long one.
    """
    assert pytest.approx(14.4) == 30 * 24 * 0.02
    assert pytest.approx(6) == 30 * 24 * 0.05 / 6
    assert pytest.approx(1) == 30 * 0.10 / 3
    for objective in OBJECTIVES:
        name = "".join(part.capitalize() for part in objective.split("-"))
        fast, slowly = (
            ALERTS[f"Ratchet{name}{speed}"]["expr"] for speed in ("BurnsFast", "BurnsSlowly")
        )
        assert _compared_windows(fast, objective) == [
            ("1h", "14.4"),
            ("5m", "14.4"),
            ("6h", "6"),
            ("30m", "6"),
        ]
        assert _compared_windows(slowly, objective) == [("3d", ""), ("6h", "")]


def _compared_windows(expr: str, objective: str) -> list[tuple[str, str]]:
    return re.findall(
        rf'ratio_rate(\w+){{objective="{objective}"}} > on \(objective\) (?:([\d.]+) \* '
        r")?ratchet:objective_budget:ratio",
        expr,
    )
