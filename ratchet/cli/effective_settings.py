"""Display of the effective settings of each lane, which the trainer reports."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ratchet import console
from shared.lane_report import Estimate, LaneReport
from shared.python_command import module_command

REPORTS = TypeAdapter(list[LaneReport])


def read_lane_reports(model_files: Path, bases: Path | None) -> tuple[list[LaneReport], str]:
    """Run `services.trainer.lane_reports` in a separate process; without `bases`, the environment
    names their folder. Return the reports, and the reason why there are none, empty if there are.
    """
    environment = os.environ | {"RATCHET_MODELS": str(model_files)}  # noqa: TID251 (passed on to the process)
    if bases is not None:
        environment["RATCHET_BASES"] = str(bases)
    command = module_command("services.trainer.lane_reports")
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    try:
        reports = REPORTS.validate_json(process.stdout)
    except ValidationError:
        reports = []
    if reports:
        return reports, ""
    last_line = (process.stderr.strip().splitlines() or ["the trainer's report is empty"])[-1]
    return [], last_line


def print_lane_reports(reports: Sequence[LaneReport]) -> None:
    """Print a table for each lane, and the estimates of a run."""
    for report in reports:
        console.print_table(
            ("setting", "value", "reason"),
            [[each.name, _value(each.value), each.reason] for each in report.settings],
            title=f"{report.model}/{report.lane}: effective settings on {report.device}",
        )
        for name, text in (
            ("rehearsal", report.rehearsal),
            ("memory of a run", _memory(report.memory)),
            ("time of a run", _time(report.time)),
        ):
            console.print_text(f"  {name}: {text}")


def _value(value: object) -> str:
    match value:
        case None:
            return "all"
        case bool():
            return str(value).lower()
        case tuple():
            return ", ".join(map(str, value))
        case float():
            return f"{value:g}"
    return str(value)


def _memory(estimate: Estimate) -> str:
    if estimate.highest is None:
        return estimate.basis
    return f"about {estimate.highest / 2**30:.1f} GiB at most ({estimate.basis})"


def _time(estimate: Estimate) -> str:
    if estimate.lowest is None or estimate.highest is None:
        return estimate.basis
    low, high = (f"{bound:.0f}" for bound in (estimate.lowest, estimate.highest))
    return f"{low if low == high else f'{low} to {high}'} s ({estimate.basis})"
