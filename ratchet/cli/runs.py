"""`ratchet runs`, `ratchet pause` and `ratchet resume`: training runs as the registry knows them,
and the control of training.
"""

from typing import Any

import typer
from pydantic import JsonValue

from ratchet import console
from ratchet.cli.status_report import pause_text
from ratchet.local_stack.token_store import token_for
from ratchet.options import (
    DEFAULT_REASON,
    DEFAULT_REGISTRY,
    DEFAULT_STATE,
    Json,
    Reason,
    Registry,
    State,
    Token,
)
from ratchet.registry_client import RegistryClient

_SETS = {
    "held_out": "held-out examples",
    "golden": "golden set",
    "retention": "regression set",
    "canaries": "regression prompts",
}

pauses = typer.Typer()

runs = typer.Typer(no_args_is_help=True, help="List, show, cancel and resume training runs.")


@runs.command("list")
def list_runs(
    model: str,
    registry: Registry = DEFAULT_REGISTRY,
    token: Token = None,
    state: State = DEFAULT_STATE,
    json: Json = False,
) -> None:
    """Show the training runs of a model, newest first, with waiting ones at the top."""
    with RegistryClient(registry, token_for(registry, state, token)) as client:
        items = client.get_all(f"/api/models/{model}/runs")
        shown = client.get(f"/api/models/{model}")
    if json:
        console.print_json({"items": items})
        return
    console.print_table(
        ("run", "lane", "started", "state", "step", "parent", "version", "reason"),
        [
            *(
                (run_id, "", "", "waiting", "", "", "", "")
                for run_id in reversed(shown["waiting_runs"])
            ),
            *(
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
            ),
        ],
    )
    if paused := pause_text(shown):
        console.print_text(paused)


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


@runs.command("cancel")
def cancel_run(
    run_id: str,
    reason: Reason = DEFAULT_REASON,
    registry: Registry = DEFAULT_REGISTRY,
    token: Token = None,
    state: State = DEFAULT_STATE,
    json: Json = False,
) -> None:
    """Cancel a run that has no outcome yet, started or not. Training stops after its
    current step and keeps its checkpoint; the next batch is trained.
    """
    _change_run(run_id, "cancel", reason, registry, token_for(registry, state, token), json)


@runs.command("resume")
def resume_run(
    run_id: str,
    reason: Reason = DEFAULT_REASON,
    registry: Registry = DEFAULT_REGISTRY,
    token: Token = None,
    state: State = DEFAULT_STATE,
    json: Json = False,
) -> None:
    """Resume a cancelled run: from its checkpoint, or from its start if the champion or the data
    have changed.
    """
    _change_run(run_id, "resume", reason, registry, token_for(registry, state, token), json)


def _change_run(
    run_id: str, change: str, reason: str, registry: str, token: str | None, json: bool
) -> None:
    with RegistryClient(registry, token) as client:
        run = client.post(f"/api/runs/{run_id}/{change}", {"reason": reason})
    if json:
        console.print_json(run)
        return
    state = run["state"]
    details = run["reason"] if state == "cancelled" else f"not cancelled, its state is {state}"
    console.print_text(f"run {run_id} is {details}")


@pauses.command()
def pause(
    model: str,
    reason: Reason = DEFAULT_REASON,
    registry: Registry = DEFAULT_REGISTRY,
    token: Token = None,
    state: State = DEFAULT_STATE,
    json: Json = False,
) -> None:
    """Start no new training run of a model. Feedback is still taken, and batches form and wait; a
    run that has started is completed.
    """
    _change_pause(model, "pause", reason, registry, token_for(registry, state, token), json)


@pauses.command()
def resume(
    model: str,
    reason: Reason = DEFAULT_REASON,
    registry: Registry = DEFAULT_REGISTRY,
    token: Token = None,
    state: State = DEFAULT_STATE,
    json: Json = False,
) -> None:
    """Train a model again after a pause: its waiting batches first, the oldest one at the front."""
    _change_pause(model, "resume", reason, registry, token_for(registry, state, token), json)


def _change_pause(
    model: str, change: str, reason: str, registry: str, token: str | None, json: bool
) -> None:
    with RegistryClient(registry, token) as client:
        answer = client.post(f"/api/models/{model}/{change}", {"reason": reason})
        running = [] if json else client.get(f"/api/models/{model}/runs", limit="1")["items"]
    if json:
        console.print_json(answer)
        return
    console.print_text(pause_text(answer) or f"training of {model} is not paused")
    if answer["pause"] and any(run["ended_at"] is None for run in running):
        console.print_text(f"run {running[0]['run_id']} has started and is completed")


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
