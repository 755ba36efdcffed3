"""Reads the rule files and their test cases."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from shared.observability.metrics import CATALOGUE

FOLDER = Path("deploy/prometheus")
CASES = Path("tests/monitoring/rules")
RUNBOOKS = Path("docs/runbooks")

EXTERNAL_METRICS = frozenset({"up", "process_start_time_seconds", "process_resident_memory_bytes"})
"""Metrics of Prometheus itself and of its client library."""

_STRING = re.compile(r'"[^"]*"')
_LABELS = re.compile(
    r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)|\{[^}]*\}|\[[^]]*\]"
)
_NAME = re.compile(r"(?<![a-zA-Z0-9_:.])[a-zA-Z_:][a-zA-Z0-9_:]*(?![a-zA-Z0-9_:]*\s*\()")
_WORDS = frozenset(
    {
        "and",
        "or",
        "unless",
        "offset",
        "bool",
        "by",
        "on",
        "without",
        "ignoring",
        "group_left",
        "group_right",
    }
)


def rules() -> Iterator[dict[str, Any]]:
    """Yield alerts and recording rules, in file order."""
    for path in sorted((FOLDER / "rules").glob("*.yaml")):
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
            yield from group["rules"]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def recorded() -> set[str]:
    return {rule["record"] for rule in rules() if "record" in rule}


def metrics_of(expr: str) -> set[str]:
    """Return the metrics that an expression uses; for a histogram series, the histogram."""
    bare = _LABELS.sub(" ", _STRING.sub('""', expr))
    histograms = {row.name for row in CATALOGUE if row.kind == "histogram"}
    metrics = set()
    for name in set(_NAME.findall(bare)) - _WORDS:
        family = re.sub(r"_(bucket|sum|count)$", "", name)
        metrics.add(family if family in histograms else name)
    return metrics


def known_metrics() -> set[str]:
    return {row.name for row in CATALOGUE} | EXTERNAL_METRICS | recorded()
