"""`ratchet forget`: withdraw a user's feedback."""

import asyncio
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import typer

from ratchet import console
from ratchet.erasure.report import report_model, show_reports
from ratchet.erasure.request import withdraw
from ratchet.local_stack.token_store import token_for
from ratchet.options import (
    DEFAULT_BOOTSTRAP_SERVERS,
    DEFAULT_REGISTRY,
    DEFAULT_STATE,
    Bootstrap,
    Json,
    ModelFiles,
    Registry,
    State,
    Token,
    security_from_environment,
)
from shared.clock import SystemClock
from shared.config.models import load_models
from shared.events import UserForgotten

forgetting = typer.Typer()


@forgetting.command()
def forget(
    user: Annotated[str, typer.Option(help="The user id in the feedback.")],
    model: Annotated[
        str | None, typer.Option(help="Only feedback on this model; default: all models.")
    ] = None,
    reason: Annotated[
        str | None, typer.Option(help="Stored permanently, so do not name the user.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the services.")] = 120.0,
    model_files: ModelFiles = Path("models"),
    bootstrap_servers: Bootstrap = DEFAULT_BOOTSTRAP_SERVERS,
    registry: Registry = DEFAULT_REGISTRY,
    token: Token = None,
    state: State = DEFAULT_STATE,
    json: Json = False,
) -> None:
    """Withdraw a user's feedback from pending examples, replay and all future training sets."""
    declared = load_models(model_files)
    chosen = [declared.get(model)] if model is not None else list(declared.files.values())
    if not yes:
        typer.confirm(
            f"Withdraw the feedback of {user} on {', '.join(file.model for file in chosen)}? This "
            "cannot be undone",
            abort=True,
            err=True,
        )
    clock = SystemClock()
    event = UserForgotten(
        event_id=str(uuid4()), occurred_at=clock.now(), user_id=user, model=model, reason=reason
    )
    progress = asyncio.run(
        withdraw(
            bootstrap_servers,
            event,
            chosen,
            clock,
            timeout,
            console.print_status,
            security_from_environment(),
        )
    )
    registry_token = token_for(registry, state, token)
    reports = [
        report_model(file.model, progress, registry, registry_token, clock, timeout)
        for file in chosen
    ]
    if json:
        console.print_json({"forgotten": progress.forgotten, "models": reports})
    else:
        show_reports(reports)
