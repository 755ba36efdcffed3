"""The rules and their cases, as a reader sees them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from shared.observability.metrics import CATALOGUE

FOLDER = Path("deploy/prometheus")
CASES = Path("tests/monitoring/rules")
RUNBOOKS = Path("docs/runbooks")

NOT_OURS = frozenset({"up", "process_start_time_seconds", "process_resident_memory_bytes"})
"""What Prometheus itself says of a target, and what its own client exports."""

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
    """Alerts and recording rules, in the order of the files."""
    for path in sorted((FOLDER / "rules").glob("*.yaml")):
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
            yield from group["rules"]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def recorded() -> set[str]:
    return {rule["record"] for rule in rules() if "record" in rule}


def asked(expr: str) -> set[str]:
    """The metrics that an expression asks for; of a histogram, the histogram."""
    bare = _LABELS.sub(" ", _STRING.sub('""', expr))
    histograms = {row.name for row in CATALOGUE if row.kind == "histogram"}
    found = set()
    for name in set(_NAME.findall(bare)) - _WORDS:
        family = re.sub(r"_(bucket|sum|count)$", "", name)
        found.add(family if family in histograms else name)
    return found


def known() -> set[str]:
    return {row.name for row in CATALOGUE} | NOT_OURS | recorded()
