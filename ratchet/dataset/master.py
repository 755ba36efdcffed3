"""`ratchet master`: from a folder of documents to a batch of the lane `master`."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ratchet import console
from ratchet.dataset.build_report import show_build
from ratchet.dataset.importing import run_service
from ratchet.dataset.lookup import read_announced_batches
from ratchet.dataset.training import (
    LANE,
    accepted_hyperparameters,
    announce_dataset,
    service_environment,
)
from ratchet.local_stack.token_store import token_for
from ratchet.options import (
    DEFAULT_BOOTSTRAP_SERVERS,
    DEFAULT_REGISTRY,
    DEFAULT_STATE,
    Bases,
    Bootstrap,
    Json,
    ModelFiles,
    Registry,
    State,
    Token,
    security_from_environment,
)
from ratchet.registry_client import RegistryClient
from shared.events import Artefact, BatchReady
from shared.kafka.announced_batches import newest_feedback_batch

master = typer.Typer(
    no_args_is_help=True, help="Build a dataset from documents and train the lane `master` on it."
)

Documents = Annotated[
    Path,
    typer.Option(
        help="Folder of documents: Markdown, HTML, text, PDF, DOCX, and transcripts (VTT, SRT)."
    ),
]
RecipeFile = Annotated[
    Path | None,
    typer.Option(help="YAML file with the system message, wording of questions, and templates."),
]
Quick = Annotated[
    bool, typer.Option("--quick", help="At most 300 chunks and 1,000 examples, for a first look.")
]
Objects = Annotated[
    str, typer.Option(envvar="RATCHET_OBJECT_STORE", help="A folder or an fsspec URL.")
]
DEFAULT_OBJECTS = ".ratchet/objects"
_RUN_FIELDS = ("state", "run_id", "step", "total_steps", "version", "reason")


@master.command("plan")
def plan(
    model: str,
    documents: Documents,
    recipe: RecipeFile = None,
    quick: Quick = False,
    models: ModelFiles = Path("models"),
    json: Json = False,
) -> None:
    """Show what a dataset of these documents would contain, what would be dropped and why. Nothing
    is written. The exit status is 0 if there would be a dataset, 1 if not, 2 if the command or the
    configuration is wrong.
    """
    status, report = _build(documents, model, recipe, {"RATCHET_MODELS": str(models)}, quick, True)
    if json:
        console.print_json(report)
    else:
        show_build(report, model, dry_run=True)
    raise typer.Exit(status)


@master.command("run")
def run(
    model: str,
    documents: Documents,
    recipe: RecipeFile = None,
    quick: Quick = False,
    set_values: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A hyperparameter of this run, such as rank=32; may be repeated.",
        ),
    ] = None,
    models: ModelFiles = Path("models"),
    bases: Bases = DEFAULT_STATE / "bases",
    object_store: Objects = DEFAULT_OBJECTS,
    bootstrap_servers: Bootstrap = DEFAULT_BOOTSTRAP_SERVERS,
    json: Json = False,
) -> None:
    """Build a dataset of documents and announce it as a batch: trained from the base, judged by the
    gate. The exit status is 0 if the batch was announced, 1 if it was refused, 2 if the command or
    the configuration is wrong.
    """
    environment = service_environment(models, object_store, bootstrap_servers)
    hyperparameters = accepted_hyperparameters(
        "master", models, model, LANE, set_values or (), bases
    )
    newest, number = newest_feedback_batch(
        asyncio.run(read_announced_batches(bootstrap_servers, security_from_environment())), model
    )
    status, report = _build(documents, model, recipe, environment, quick, False)
    if report["refused"]:
        if json:
            console.print_json(report)
        else:
            show_build(report, model, dry_run=False)
        raise typer.Exit(status)
    if not json:
        show_build(report, model, dry_run=False)
    dataset = Artefact.model_validate(report["manifest"])
    announce_dataset(model, dataset, newest, number, hyperparameters, environment, json=json)


@master.command("status")
def status(
    model: str,
    bootstrap_servers: Bootstrap = DEFAULT_BOOTSTRAP_SERVERS,
    registry: Registry = DEFAULT_REGISTRY,
    token: Token = None,
    state: State = DEFAULT_STATE,
    json: Json = False,
) -> None:
    """Show the batches of a model's lane `master`, newest first, with the state of their runs."""
    announced = asyncio.run(read_announced_batches(bootstrap_servers, security_from_environment()))
    with RegistryClient(registry, token_for(registry, state, token)) as client:
        runs = client.get_all(f"/api/models/{model}/runs")
    rows = batch_rows([batch for batch in announced if batch.model == model], runs)
    if json:
        console.print_json({"items": rows})
        return
    if not rows:
        console.print_text(f"no batch of the lane {LANE} of {model} has been announced")
        return
    console.print_table(
        ("batch", "announced", "training", "held out", "state", "step", "version", "reason"),
        [
            (
                str(row["batch_id"])[:12],
                f"{row['announced_at']:%Y-%m-%d %H:%M}",
                row["training"],
                row["held_out"],
                row["state"],
                f"{row['step']}/{row['total_steps']}" if row["total_steps"] else "",
                row["version"],
                row["reason"],
            )
            for row in rows
        ],
    )


def batch_rows(
    batches: Sequence[BatchReady], runs: Iterable[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Join a model's batches of the lane `master`, newest first, with their newest runs. A batch
    without a run is `waiting`.
    """
    # The registry lists the newest run first; the last of equal keys stays.
    newest = {run["batch_id"]: run for run in reversed(list(runs))}
    nothing: dict[str, Any] = {"state": "waiting"}
    return [
        {
            "batch_id": batch.batch_id,
            "announced_at": batch.occurred_at,
            "training": batch.counts.training,
            "held_out": batch.counts.held_out,
            **{field: newest.get(batch.batch_id, nothing).get(field) for field in _RUN_FIELDS},
        }
        for batch in reversed(batches)
        if batch.lane == LANE
    ]


def _build(
    documents: Path,
    model: str,
    recipe: Path | None,
    environment: Mapping[str, str],
    quick: bool,
    dry_run: bool,
) -> tuple[int, dict[str, Any]]:
    """Build in a process of the dataset service; return its exit status and report. Without a
    report, exit: the process has printed the reason.
    """
    arguments = [f"--model={model}", f"--documents={documents}"]
    if recipe is not None:
        arguments.append(f"--recipe={recipe}")
    if quick:
        arguments.append("--quick")
    if dry_run:
        arguments.append("--dry-run")
    status, report = run_service("services.dataset.build", arguments, environment)
    if report is None:
        raise typer.Exit(status)
    return status, report
