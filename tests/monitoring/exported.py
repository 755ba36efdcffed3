"""What a service exports, held against the catalogue and against Prometheus's own linter."""

import subprocess

from prometheus_client.parser import text_string_to_metric_families

from shared.observability.metrics import CATALOGUE
from tests.support.programs import require_program


def check_exported(service: str, exposed: str) -> None:
    """Every metric that the catalogue has for a service is there, with its type and its labels, and
    none besides but `process_*`.
    """
    families = {
        found.name: found
        for found in text_string_to_metric_families(exposed)
        if not found.name.endswith("_created")
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
    linted = subprocess.run(
        [require_program("promtool"), "check", "metrics"],
        input=exposed,
        text=True,
        capture_output=True,
        check=False,
    )
    assert (linted.returncode, linted.stdout + linted.stderr) == (0, "")


def sample(exposed: str, name: str, **labels: str) -> float | None:
    """The value of a series; None where there is none."""
    for family in text_string_to_metric_families(exposed):
        for found in family.samples:
            if found.name == name and found.labels == labels:
                return float(found.value)
    return None
