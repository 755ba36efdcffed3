"""Checks the metrics of a service against the catalogue and with Prometheus's linter."""

import subprocess

from prometheus_client.parser import text_string_to_metric_families

from shared.observability.metrics import CATALOGUE
from tests.support.programs import require_program


def check_exported(service: str, exposed: str) -> None:
    """Assert that a service exports exactly its metrics of the catalogue, with their types and
    labels, and `process_*`.
    """
    families = {
        family.name: family
        for family in text_string_to_metric_families(exposed)
        if not family.name.endswith("_created")
    }
    expected = {
        row.name.removesuffix("_total"): row for row in CATALOGUE if row.applies_to(service)
    }
    assert set(expected) == {name for name in families if not name.startswith("process_")}
    for name, row in expected.items():
        assert families[name].type == row.kind, name
        assert families[name].documentation == row.description
        for sample in families[name].samples:
            assert set(sample.labels) - {"le"} == set(row.labels), sample
    process = subprocess.run(
        [require_program("promtool"), "check", "metrics"],
        input=exposed,
        text=True,
        capture_output=True,
        check=False,
    )
    assert (process.returncode, process.stdout + process.stderr) == (0, "")


def sample(exposed: str, name: str, **labels: str) -> float | None:
    """Return the value of a series, or None if it does not exist."""
    for family in text_string_to_metric_families(exposed):
        for series in family.samples:
            if series.name == name and series.labels == labels:
                return float(series.value)
    return None
