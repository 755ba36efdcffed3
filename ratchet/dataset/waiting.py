"""`ratchet dataset waiting`: shows the training examples that wait for the next batch."""

from pathlib import Path

import typer

from ratchet import console
from ratchet.dataset.importing import run_service
from ratchet.options import DEFAULT_BOOTSTRAP_SERVERS, Bootstrap, Json, ModelFiles


def show_waiting(
    model: str,
    models: ModelFiles = Path("models"),
    bootstrap_servers: Bootstrap = DEFAULT_BOOTSTRAP_SERVERS,
    json: Json = False,
) -> None:
    """Show how many training examples the next batch needs, how many are usable, and which limits
    hold others back.
    """
    environment = {"RATCHET_MODELS": str(models), "RATCHET_BOOTSTRAP_SERVERS": bootstrap_servers}
    status, report = run_service("services.dataset.waiting", [f"--model={model}"], environment)
    if report is None:
        raise typer.Exit(status)
    if json:
        console.print_json(report)
        return
    shards = report["shards"]
    for number, shard in enumerate(shards):
        name = model if len(shards) == 1 else f"{model}#{number}"
        console.print_text(f"{name}: {shard['text']}")
    if any(
        held_back["limit"] in ("examples_per_user", "user_share")
        for shard in shards
        for held_back in shard["held_back"]
    ):
        console.print_text(
            "Examples over the limits on users wait for a later batch. For a small team, list its "
            "members in curation.trusted_users, and restart the dataset service."
        )
