"""Commands on the versions of a model: list, history, retention, promotion, rollback and holds.
The registry executes them.
"""

from datetime import datetime
from typing import Annotated, Any

import typer

from ratchet import console
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

versions = typer.Typer()


@versions.command("versions")
def list_versions(
    model: str,
    registry: Registry = DEFAULT_REGISTRY,
    token: Token = None,
    state: State = DEFAULT_STATE,
    json: Json = False,
) -> None:
    """Show the versions of a model, newest first: aliases, run, and the gate's results. `held-out`
    is the gain in nats per token on held-out feedback, `exact` the share of exact answers.
    """
    with RegistryClient(registry, token_for(registry, state, token)) as client:
        items = client.get_all(f"/api/models/{model}/versions")
    if json:
        console.print_json({"items": items})
        return
    console.print_table(
        ("version", "aliases", "parent", "run", "lane", "held-out", "exact", "removed"),
        [
            (
                item["version"],
                ", ".join(item["aliases"]),
                item["parent_version"],
                item["run_id"],
                item["lane"],
                _held_out_gain(item["verdict"]),
                _exact_share(item["verdict"]),
                item["removed_at"],
            )
            for item in items
        ],
    )


@versions.command()
def history(
    model: str,
    registry: Registry = DEFAULT_REGISTRY,
    token: Token = None,
    state: State = DEFAULT_STATE,
    json: Json = False,
) -> None:
    """Show the moves of a model's aliases, with time, actor and reason. `operator` is the name of
    the owner of the token that a person used."""
    with RegistryClient(registry, token_for(registry, state, token)) as client:
        items = client.get_all(f"/api/models/{model}/history")
    _show(items, json, ("at", "action", "from", "to", "actor", "operator", "reason"))


@versions.command()
def retention(
    model: str,
    registry: Registry = DEFAULT_REGISTRY,
    token: Token = None,
    state: State = DEFAULT_STATE,
    json: Json = False,
) -> None:
    """Show which adapters the retention rule would remove, and why it keeps the others.

    Removes nothing; only the registry removes adapters.
    """
    with RegistryClient(registry, token_for(registry, state, token)) as client:
        answer = client.get(f"/api/models/{model}/retention")
    if json:
        console.print_json(answer)
        return
    rule = answer["rule"]
    rows = [
        (
            row["run_id"],
            row["version"],
            row["ended_at"],
            "; ".join(row["stays_because"]) or "will be removed",
        )
        for row in answer["items"]
    ]
    title = (
        f"{rule['versions']} newest versions, {rule['days']:g} days"
        if rule
        else f"no rule: models/{model}.yaml has no retention"
    )
    console.print_table(("run", "version", "ended", "kept because"), rows, title=title)


@versions.command()
def rollback(
    model: str,
    to: Annotated[
        str | None, typer.Option(help="The version to serve; default: the previous one.")
    ] = None,
    reason: Reason = DEFAULT_REASON,
    registry: Registry = DEFAULT_REGISTRY,
    token: Token = None,
    state: State = DEFAULT_STATE,
    json: Json = False,
) -> None:
    """Serve an earlier or later version instead of the champion."""
    with RegistryClient(registry, token_for(registry, state, token)) as client:
        answer = client.post(f"/api/models/{model}/rollback", {"to": to, "reason": reason})
    _show_move(answer, json)


@versions.command()
def promote(
    model: str,
    version: Annotated[
        str | None, typer.Option(help="The version to serve; default: the challenger.")
    ] = None,
    reason: Reason = DEFAULT_REASON,
    registry: Registry = DEFAULT_REGISTRY,
    token: Token = None,
    state: State = DEFAULT_STATE,
    json: Json = False,
) -> None:
    """Serve the challenger, or another version that the gate promoted, instead of the champion."""
    with RegistryClient(registry, token_for(registry, state, token)) as client:
        answer = client.post(f"/api/models/{model}/promote", {"version": version, "reason": reason})
    _show_move(answer, json)


@versions.command()
def hold(
    model: str,
    reason: Reason,
    registry: Registry = DEFAULT_REGISTRY,
    token: Token = None,
    state: State = DEFAULT_STATE,
    json: Json = False,
) -> None:
    """Block automatic moves of the champion; promoted versions wait as challengers."""
    _change_hold(model, "hold", reason, registry, token_for(registry, state, token), json)


@versions.command()
def release(
    model: str,
    reason: Reason,
    registry: Registry = DEFAULT_REGISTRY,
    token: Token = None,
    state: State = DEFAULT_STATE,
    json: Json = False,
) -> None:
    """Lift a hold, including one that the monitor placed."""
    _change_hold(model, "release", reason, registry, token_for(registry, state, token), json)


def _change_hold(
    model: str, change: str, reason: str, registry: str, token: str | None, json: bool
) -> None:
    with RegistryClient(registry, token) as client:
        answer = client.post(f"/api/models/{model}/{change}", {"reason": reason})
    if json:
        console.print_json(answer)
    elif held := answer["hold"]:
        console.out.print(
            f"{model} has been on hold since {held['since']}: {held['reason']}", highlight=False
        )
    else:
        console.out.print(f"{model} is not on hold", highlight=False)


def _held_out_gain(verdict: dict[str, Any] | None) -> str:
    rows = verdict["comparisons"] if verdict else []
    return next((f"{row['difference']:+.3f}" for row in rows if row["name"] == "held_out"), "")


def _exact_share(verdict: dict[str, Any] | None) -> str:
    rows = verdict["measures"] if verdict else []
    return next((f"{row['candidate']:.0%}" for row in rows if row["name"] == "exact_match"), "")


def _show_move(answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        console.print_json(answer)
        return
    state_text = (
        f"served after {answer['seconds']:.2f} s" if answer["deployed"] else "is being deployed"
    )
    console.out.print(f"{answer['to']} {state_text} (was {answer['from']})", highlight=False)


def _show(items: list[Any], as_json: bool, columns: tuple[str, ...]) -> None:
    if as_json:
        console.print_json({"items": items})
        return
    console.print_table(
        columns, [[_cell(item.get(column)) for column in columns] for item in items]
    )


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    return "" if value is None else str(value)
