"""`python -m deploy.prometheus`: write docs/metrics.md from the catalogue."""

from pathlib import Path

from shared.observability.metrics import CATALOGUE, FAUST_PREFIX, Metric

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"

_INTRODUCTION = """# Metrics

This page lists every metric that a service exports at `/metrics`. `python -m deploy.prometheus`
generates it from the catalogue in
[`shared/observability/metrics.py`](../shared/observability/metrics.py). All labels are bounded:
models, reasons, kinds and the like, never users or events. For alerts on these metrics see
[monitoring](monitoring.md).

Names, kinds and labels are stable; metrics may be added. Counters that are used in alerts start at
zero for label values that are known at startup.
"""

_FAUST = """
Faust's own metrics, of the two services that use it; their names begin with `faust_`.
"""

_PROCESS = """
## Process metrics

`process_resident_memory_bytes`, `process_virtual_memory_bytes`, `process_cpu_seconds_total`,
`process_open_fds`, `process_max_fds` and `process_start_time_seconds` come from the Prometheus
client library. They do not include the training process.
"""

_TITLES = {
    "feedback": "Feedback",
    "dataset": "Dataset",
    "trainer": "Trainer",
    "registry": "Registry",
    "dataset, trainer, registry": "Services that use the object store",
    "any": "Every service",
}


def metrics_page() -> str:
    """Return the content of the metrics page."""
    own = [row for row in CATALOGUE if not row.name.startswith(FAUST_PREFIX)]
    assert {row.service for row in own} == set(_TITLES), "every service needs a section title"
    parts = [_INTRODUCTION]
    for service, title in _TITLES.items():
        parts.append(f"\n## {title}\n\n{_table([row for row in own if row.service == service])}")
    faust = [row for row in CATALOGUE if row.name.startswith(FAUST_PREFIX)]
    parts.append(f"\n## Faust\n{_FAUST}\n{_table(faust)}")
    return "".join(parts) + _PROCESS


def _table(rows: list[Metric]) -> str:
    lines = ["| name | kind | unit | labels | description |", "|---|---|---|---|---|"]
    for row in rows:
        labels = ", ".join(f"`{label}`" for label in row.labels)
        buckets = (
            f" Buckets: {', '.join(f'{bound:g}' for bound in row.buckets)}." if row.buckets else ""
        )
        lines.append(
            f"| `{row.name}` | {row.kind} | {row.unit} | {labels} | {row.description}{buckets} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    PAGE.write_text(metrics_page(), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
