"""`python -m deploy.prometheus`: write docs/metrics.md from the catalogue."""

from pathlib import Path

from shared.observability.metrics import CATALOGUE, FAUST_PREFIX, Metric

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"

_BEGINNING = """# Metrics

Every metric that a service exports at `/metrics`, from the catalogue in [`shared/observability/metrics.py`](../shared/observability/metrics.py);
`python -m deploy.prometheus` writes this page. No label is unbounded: models, reasons, kinds and the like, never users or events. What to
do with them: [monitoring](monitoring.md).

Names, kinds and labels stay as they are; more may be added. Counters that an alert looks at begin at zero for what is known at the start.
"""

_FAUST = """
What Faust counts itself, of the two services that run on it; all of it begins with `faust_`.
"""

_PROCESS = """
## Of each process

`process_resident_memory_bytes`, `process_virtual_memory_bytes`, `process_cpu_seconds_total`, `process_open_fds`, `process_max_fds`
and `process_start_time_seconds` are those of Prometheus's own client. The trainer's child process is not counted in.
"""

_TITLES = {
    "feedback": "Feedback",
    "dataset": "Dataset",
    "trainer": "Trainer",
    "registry": "Registry",
    "dataset, trainer, registry": "Those that use the object store",
    "any": "Every service",
}


def metrics_page() -> str:
    """The whole page."""
    own = [row for row in CATALOGUE if not row.name.startswith(FAUST_PREFIX)]
    assert {row.service for row in own} == set(_TITLES), "a section for each"
    parts = [_BEGINNING]
    for service, title in _TITLES.items():
        parts.append(f"\n## {title}\n\n{_table([row for row in own if row.service == service])}")
    parts.append(
        f"\n## Faust\n{_FAUST}\n{_table([row for row in CATALOGUE if row.name.startswith(FAUST_PREFIX)])}"
    )
    return "".join(parts) + _PROCESS


def _table(rows: list[Metric]) -> str:
    lines = ["| name | kind | unit | labels | |", "|---|---|---|---|---|"]
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
