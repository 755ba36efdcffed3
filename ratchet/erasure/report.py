"""Report of a withdrawal by model: numbers, the versions made with the user's examples, and the
next step.
"""

from collections.abc import Iterable
from time import sleep
from typing import Any

from ratchet import console
from ratchet.erasure.request import POLL_SECONDS, WithdrawalProgress
from ratchet.registry_client import RegistryClient
from shared.clock import Clock
from shared.errors import RatchetError, Unavailable


def report_model(
    model: str,
    progress: WithdrawalProgress,
    registry: str,
    token: str | None,
    clock: Clock,
    timeout: float,
) -> dict[str, Any]:
    """Return the summary of one model's withdrawal, with its affected versions from the registry.

    If the registry does not answer, `unknown` holds the error instead.
    """
    summary = progress.summary(model)
    with RegistryClient(registry, token) as client:
        try:
            return summary | affected_versions(client, progress, model, clock, timeout)
        except RatchetError as error:
            return summary | {"unknown": str(error)}


def affected_versions(
    client: RegistryClient, progress: WithdrawalProgress, model: str, clock: Clock, timeout: float
) -> dict[str, Any]:
    """Return three facts about a model's versions.

    - `versions`: those made with examples of the user, newest first;
    - `champion`: the served version;
    - `without`: the newest version made without withdrawn examples, at the latest the base.

    Waits until the registry has processed all answers. Raises Unavailable if it has not within
    `timeout` seconds, and the errors of `RegistryClient`.
    """
    started = clock.monotonic()
    while True:
        withdrawals = client.get_all(f"/api/models/{model}/withdrawals")
        withdrawal = next(
            (item for item in withdrawals if item["forgotten"] == progress.forgotten), None
        )
        if withdrawal is not None and withdrawal["answers"] >= progress.event_count(model):
            break
        if clock.monotonic() - started > timeout:
            raise Unavailable(
                f"the registry did not process the withdrawal from {model} within {timeout:g} s; "
                f"check GET /api/models/{model}/withdrawals later"
            )
        sleep(POLL_SECONDS)
    versions = client.get_all(f"/api/models/{model}/versions")
    return {
        "versions": withdrawal["versions"],
        "champion": client.get(f"/api/models/{model}")["champion"],
        "without": next(
            version["version"] for version in versions if not version["withdrawn_examples"]
        ),
    }


def show_reports(reports: Iterable[dict[str, Any]]) -> None:
    """Print a table of the reports, and below it the advice for each model."""
    reports = list(reports)
    columns = (
        "model",
        "waiting examples removed",
        "batches marked",
        "examples in them",
        "versions made with them",
    )
    rows = [
        (
            report["model"],
            report["waiting"],
            report["batches"],
            report["examples"],
            _versions(report),
        )
        for report in reports
    ]
    console.print_table(columns, rows)
    for report in reports:
        for line in advice(report):
            console.out.print(f"{report['model']}: {line}", highlight=False, markup=False)


def advice(report: dict[str, Any]) -> list[str]:
    """Return warnings about one model, and the operator's next step."""
    lines = []
    if report["unread"]:
        lines.append(
            "could not be read, so it is unknown whether they contain the user's examples: "
            f"{', '.join(report['unread'])}"
        )
    champion = report.get("champion")
    if "unknown" in report:
        lines.append(f"the versions made with the examples are unknown: {report['unknown']}")
    elif champion in report["versions"]:
        lines.append(
            f"the served version {champion} was made with them. To remove what it learned, roll "
            "back to the newest version made without: "
            f"ratchet rollback {report['model']} --to {report['without']} --reason '…'. "
            "Training continues from there without them."
        )
    else:
        lines.append(f"the served version {champion} was made without them; nothing else to do.")
    return lines


def _versions(report: dict[str, Any]) -> str:
    return "unknown" if "unknown" in report else ", ".join(report["versions"]) or "none"
