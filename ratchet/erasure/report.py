"""What a withdrawal did, model by model: in numbers, with the versions that were made with the
user's examples, and what to do next.
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
    """What was withdrawn of one model, and what the registry at a URL says of its versions; or,
    under `unknown`, why it says nothing.
    """
    with RegistryClient(registry, token) as client:
        try:
            return progress.summary(model) | affected_versions(
                client, progress, model, clock, timeout
            )
        except RatchetError as error:
            return progress.summary(model) | {"unknown": str(error)}


def affected_versions(
    client: RegistryClient, progress: WithdrawalProgress, model: str, clock: Clock, timeout: float
) -> dict[str, Any]:
    """The `versions` that were made with examples of the user, newest first; the `champion`, which
    is served; and `without`, the newest version that was made without any withdrawn example: the
    base, if no other.

    Waits until the registry has heard all answers. Raises Unavailable when it has not within
    `timeout` seconds, and Refused.
    """
    begun = clock.monotonic()
    while True:
        items = client.get_all(f"/api/models/{model}/withdrawals")
        heard = next((item for item in items if item["forgotten"] == progress.forgotten), None)
        if heard is not None and heard["answers"] >= progress.event_count(model):
            break
        if clock.monotonic() - begun > timeout:
            raise Unavailable(
                f"the registry has not heard of the withdrawal from {model} within "
                f"{timeout:g} s; ask it again later"
            )
        sleep(POLL_SECONDS)
    versions = client.get_all(f"/api/models/{model}/versions")
    return {
        "versions": heard["versions"],
        "champion": client.get(f"/api/models/{model}")["champion"],
        "without": next(
            version["version"] for version in versions if not version["withdrawn_examples"]
        ),
    }


def show_reports(found: Iterable[dict[str, Any]]) -> None:
    """Print the reports of some models, and under them what to know and to do."""
    reports = list(found)
    rows = [
        (one["model"], one["waiting"], one["batches"], one["examples"], _versions(one))
        for one in reports
    ]
    console.print_table(
        (
            "model",
            "waiting removed",
            "batches marked",
            "examples in them",
            "versions made with them",
        ),
        rows,
    )
    for one in reports:
        for line in advice(one):
            console.out.print(f"{one['model']}: {line}", highlight=False, markup=False)


def advice(one: dict[str, Any]) -> list[str]:
    """What an operator has to know, and does next, about one model."""
    lines = []
    if one["unread"]:
        lines.append(
            "could not be searched, so nobody knows what of the user's is in them: "
            f"{', '.join(one['unread'])}"
        )
    if "unknown" in one:
        lines.append(
            f"which versions were made with the examples could not be asked: {one['unknown']}"
        )
    elif one["champion"] in one["versions"]:
        lines.append(
            f"{one['champion']} is served and was made with them. To be rid of what it "
            "learned, go back to the newest version made "
            f"without: ratchet rollback {one['model']} --to {one['without']} --reason '…'. "
            "What is trained from there leaves them out."
        )
    else:
        lines.append(
            f"{one['champion']} is served and was made without them; nothing else is to be done."
        )
    return lines


def _versions(one: dict[str, Any]) -> str:
    return "not known" if "unknown" in one else ", ".join(one["versions"]) or "none"
