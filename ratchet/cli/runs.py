"""`ratchet runs`: lists and shows training runs as the registry knows them."""

from typing import Any

import typer
from pydantic import JsonValue

from ratchet import console
from ratchet.local_stack.token_store import token_for
from ratchet.options import DEFAULT_REGISTRY, DEFAULT_STATE, Json, Registry, State, Token
from ratchet.registry_client import RegistryClient

_SETS = {
    "held_out": "held-out examples",
    "golden": "golden set",
    "retention": "regression set",
    "canaries": "regression prompts",
}

runs = typer.Typer(no_args_is_help=True, help="List and show training runs.")


@runs.command("list")
def list_runs(
    model: str,
    registry: Registry = DEFAULT_REGISTRY,
    token: Token = None,
    state: State = DEFAULT_STATE,
    json: Json = False,
) -> None:
    """Show the training runs of a model, newest first."""
    with RegistryClient(registry, token_for(registry, state, token)) as client:
        items = client.get_all(f"/api/models/{model}/runs")
    if json:
        console.print_json({"items": items})
        return
    console.print_table(
        ("run", "lane", "started", "state", "step", "parent", "version", "reason"),
        [
            (
                run["run_id"],
                run["lane"],
                run["started_at"],
                run["state"],
                _step(run),
                run["parent_version"],
                run["version"],
                run["reason"],
            )
            for run in items
        ],
    )


@runs.command("show")
def show_run(
    run_id: str,
    registry: Registry = DEFAULT_REGISTRY,
    token: Token = None,
    state: State = DEFAULT_STATE,
    json: Json = False,
) -> None:
    """Show a run: its progress, its hyperparameters, and the verdict with its reasons."""
    with RegistryClient(registry, token_for(registry, state, token)) as client:
        run = client.get(f"/api/runs/{run_id}")
    if json:
        console.print_json(run)
        return
    rows: list[tuple[str, JsonValue]] = [
        (name.replace("_", " "), run[name])
        for name in ("model", "batch_id", "lane", "parent_version", "version", "state")
    ]
    rows.append(("step", _step(run)))
    rows += [
        (name.replace("_", " "), run[name])
        for name in ("started_at", "ended_at", "reason", "advice")
        if run[name]
    ]
    if run["points"]:
        rows.append(("loss", f"{run['points'][0]['loss']:.4f} → {run['points'][-1]['loss']:.4f}"))
    console.print_table(("run", run_id), rows)
    _show_verdict(run["verdict"])
    if run["configuration"]:
        console.print_table(
            ("hyperparameter", "value"),
            [(name, _text(value)) for name, value in run["configuration"].items()],
        )


def _show_verdict(verdict: dict[str, Any] | None) -> None:
    if verdict is None:
        return
    console.print_table(
        ("compared on", "examples", "champion", "candidate", "difference", "lower bound"),
        [
            (
                _SETS.get(row["name"], row["name"]),
                row["examples"],
                f"{row['baseline']:.4f}",
                f"{row['candidate']:.4f}",
                f"{row['difference']:.4f}",
                f"{row['lower']:.4f}",
            )
            for row in verdict["comparisons"]
        ],
    )
    for reason in verdict["reasons"]:
        console.print_text(f"- {reason}")


def _step(run: dict[str, Any]) -> str:
    return f"{run['step']} of {run['total_steps']}" if run["total_steps"] else ""


def _text(value: JsonValue) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
