"""`ratchet status`: the state of the stack on one screen."""

from typing import Any

import httpx
import typer

from ratchet import console
from ratchet.cli.status_report import ModelStatus, ServiceState, ServiceStatus, as_json, matters
from ratchet.local_stack.processes import Ports, local_url
from ratchet.local_stack.token_store import token_for
from ratchet.options import (
    DEFAULT_REGISTRY,
    DEFAULT_STATE,
    BuilderPort,
    DatasetPort,
    FeedbackPort,
    Json,
    Registry,
    ServingPort,
    State,
    Token,
    TrainerPort,
)
from ratchet.registry_client import RegistryClient, RegistryRequestRefused
from shared.errors import Unavailable

PROBE_SECONDS = 3.0

status = typer.Typer()


@status.command("status")
def show_status(
    registry: Registry = DEFAULT_REGISTRY,
    token: Token = None,
    state: State = DEFAULT_STATE,
    serving_port: ServingPort = Ports.serving,
    feedback_port: FeedbackPort = Ports.feedback,
    dataset_port: DatasetPort = Ports.dataset,
    trainer_port: TrainerPort = Ports.trainer,
    builder_port: BuilderPort = Ports.builder,
    json: Json = False,
) -> None:
    """Show services, models and their newest runs, and what needs a person; the exit status is then
    1. The services are those of `ratchet up` on this machine.
    """
    services = [
        probe("serving", local_url(serving_port)),
        probe("feedback", local_url(feedback_port)),
        probe("dataset", local_url(dataset_port)),
        probe("builder", local_url(builder_port)),
        probe("trainer", local_url(trainer_port)),
        probe("registry", registry.rstrip("/")),
    ]
    lines: list[str] = []
    models: list[ModelStatus] = []
    try:
        with RegistryClient(registry, token_for(registry, state, token), timeout=10.0) as client:
            models = [model_status(client, model) for model in client.get_all("/api/models")]
    except (Unavailable, RegistryRequestRefused) as error:
        lines.append(str(error))
    lines += matters(services, models)
    if json:
        console.print_json(as_json(services, models, lines))
    else:
        _show(services, models, lines)
    if lines:
        raise typer.Exit(1)


def probe(name: str, url: str) -> ServiceStatus:
    """Ask a service for its readiness and its metrics."""
    try:
        with httpx.Client(base_url=url, timeout=PROBE_SECONDS) as client:
            is_live, is_ready = (
                client.get(path).status_code == httpx.codes.OK for path in ("/healthz", "/readyz")
            )
            metrics = client.get("/metrics")
    except httpx.HTTPError:
        return ServiceStatus(name, url, "no answer")
    state: ServiceState = "ready" if is_ready else "not ready" if is_live else "stalled"
    return ServiceStatus(name, url, state, metrics.text if metrics.is_success else "")


def model_status(client: RegistryClient, model: dict[str, Any]) -> ModelStatus:
    """Return the status of a model of the registry's list."""
    name = model["model"]
    runs = client.get(f"/api/models/{name}/runs", limit="1")["items"]
    return ModelStatus(model, runs[0] if runs else None)


def _show(services: list[ServiceStatus], models: list[ModelStatus], lines: list[str]) -> None:
    console.print_table(
        ("service", "state", "lag", "address"),
        [(service.name, service.state, service.lag, service.url) for service in services],
    )
    console.print_table(
        ("model", "champion", "challenger", "examples waiting", "newest run"),
        [
            (
                model.name,
                model.model["champion"],
                model.model["challenger"],
                model.waiting,
                model.newest_run,
            )
            for model in models
        ],
    )
    console.print_text("\n".join(filter(None, (model.waiting_text for model in models))))
    console.print_text(
        "\n".join(["needs a person:", *lines]) if lines else "nothing needs a person"
    )
