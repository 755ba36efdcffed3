"""`ratchet train`: trains a model on a file or an imported dataset, as a batch like any other."""

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer
from pydantic_core import to_json

from ratchet import console
from ratchet.dataset.importing import (
    Columns,
    RecordFormats,
    import_report,
    run_service,
    show_report,
)
from ratchet.dataset.lookup import is_imported_reference, read_announced_batches
from ratchet.options import (
    DEFAULT_BOOTSTRAP_SERVERS,
    DEFAULT_STATE,
    Bases,
    Bootstrap,
    Json,
    ModelFiles,
    security_from_environment,
)
from shared.config.base_targets import require_run
from shared.config.models import load_models
from shared.config.training import parse_hyperparameter
from shared.errors import CommandRefused, Misconfigured
from shared.events import Artefact, BatchReady
from shared.events.hyperparameters import HyperparameterValue, Lane
from shared.kafka.announced_batches import newest_feedback_batch
from shared.storage.imported_datasets import find_imported
from shared.storage.object_store import FsspecStore

LANE: Lane = "master"

training = typer.Typer()


@training.command("train")
def train(
    model: str,
    data: Annotated[
        str, typer.Option(help="A file as for `ratchet dataset import`, or model@ID of a dataset.")
    ],
    lane: Annotated[
        Literal["master"], typer.Option(help="The lane; files are trained in `master`.")
    ] = "master",
    set_values: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A hyperparameter of this run, such as rank=32; may be repeated.",
        ),
    ] = None,
    format: RecordFormats = None,
    columns: Columns = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check only; write and announce nothing.")
    ] = False,
    models: ModelFiles = Path("models"),
    bases: Bases = DEFAULT_STATE / "bases",
    object_store: Annotated[
        str, typer.Option(envvar="RATCHET_OBJECT_STORE", help="A folder or an fsspec URL.")
    ] = ".ratchet/objects",
    bootstrap_servers: Bootstrap = DEFAULT_BOOTSTRAP_SERVERS,
    json: Json = False,
) -> None:
    """Train a model on a dataset in the lane `master`: from the base, judged by the gate. The exit
    status is 0 if the batch was announced, 1 if it was refused, 2 if the command or the
    configuration is wrong.
    """
    environment = service_environment(models, object_store, bootstrap_servers)
    hyperparameters = accepted_hyperparameters(
        "train", models, model, lane, set_values or (), bases
    )
    newest, number = newest_feedback_batch(
        asyncio.run(read_announced_batches(bootstrap_servers, security_from_environment())), model
    )
    dataset = _dataset(model, data, format, columns, environment, dry_run=dry_run, json=json)
    if dry_run:
        after = f"after batch {number - 1}" if newest else "before any batch of feedback"
        console.print_status(f"nothing was announced; it would be trained {after}")
        return
    announce_dataset(model, dataset, newest, number, hyperparameters, environment, json=json)


def service_environment(models: Path, object_store: str, bootstrap_servers: str) -> dict[str, str]:
    """Return the settings of the dataset service's processes that build and announce a batch."""
    return {
        "RATCHET_MODELS": str(models),
        "RATCHET_OBJECT_STORE": object_store,
        "RATCHET_BOOTSTRAP_SERVERS": bootstrap_servers,
    }


def accepted_hyperparameters(
    command: str, models: Path, model: str, lane: Lane, assignments: Iterable[str], bases: Path
) -> dict[str, HyperparameterValue]:
    """Parse the hyperparameters of a run, and check them with its lane. If they are refused, print
    the reason after the name of the command and exit with status 2.
    """
    try:
        hyperparameters = parse_hyperparameters(assignments)
        require_lane(models, model, lane, hyperparameters, bases)
    except Misconfigured as error:
        console.print_status(f"{command}: {error}")
        raise typer.Exit(2) from error
    return hyperparameters


def announce_dataset(
    model: str,
    dataset: Artefact,
    newest: BatchReady | None,
    number: int,
    hyperparameters: Mapping[str, HyperparameterValue],
    environment: Mapping[str, str],
    *,
    json: bool,
) -> NoReturn:
    """Announce a dataset as a batch, print the event, and exit with the status of the service.
    `newest` and `number` are those of `newest_feedback_batch`.
    """
    arguments = [f"--model={model}", f"--dataset={dataset.uri}@{dataset.digest}"]
    if newest is not None:
        arguments.append(f"--previous={newest.manifest.uri}@{newest.manifest.digest}")
    arguments.append(f"--number={number}")
    if hyperparameters:
        arguments.append(f"--hyperparameters={to_json(hyperparameters).decode()}")
    status, event = run_service("services.dataset.announce", arguments, environment)
    if event is None:
        raise typer.Exit(status)
    if json:
        console.print_json(event)
    else:
        console.print_text(f"announced as batch {event['batch_id']}, lane {event['lane']}")
    raise typer.Exit(status)


def parse_hyperparameters(assignments: Iterable[str]) -> dict[str, HyperparameterValue]:
    """Parse `NAME=VALUE`, with values as for `parse_hyperparameter`. Raises Misconfigured."""
    values: dict[str, HyperparameterValue] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not name:
            raise Misconfigured(f"--set {assignment}: expected NAME=VALUE, such as rank=32")
        if name in values:
            raise Misconfigured(f"--set {name} is given twice")
        values[name] = parse_hyperparameter(name, text)
    return values


def require_lane(
    models: Path,
    model: str,
    lane: Lane,
    hyperparameters: Mapping[str, HyperparameterValue],
    bases: Path,
) -> None:
    """Refuse before anything is read if the model file cannot train the lane with these
    hyperparameters.
    """
    declared = load_models(models)
    if model not in declared.files:
        raise Misconfigured(f"no file in {models} declares the model {model!r}")
    require_run(declared.files[model], lane, hyperparameters, bases)


def _dataset(
    model: str,
    data: str,
    format: str | None,
    columns: str | None,
    environment: dict[str, str],
    *,
    dry_run: bool,
    json: bool,
) -> Artefact:
    """Return the manifest of the dataset, imported first if `data` is a file. The report of the
    import is printed; with `json` only if no event will follow it.
    """
    if is_imported_reference(data) and not Path(data).exists():
        if not data.startswith(f"{model}@"):
            raise CommandRefused(f"{data} is no dataset of {model}; expected {model}@ID")
        return find_imported(FsspecStore(environment["RATCHET_OBJECT_STORE"]), data)
    status, report = import_report(
        Path(data), model, format, columns, None, environment, dry_run=dry_run
    )
    if report is None:
        raise typer.Exit(status)
    if json and (dry_run or report["refused"]):
        console.print_json(report)
    elif not json:
        show_report(report, model, dry_run=dry_run)
    if report["refused"]:
        raise typer.Exit(status)
    manifest: dict[str, Any] = report["manifest"]
    return Artefact.model_validate(manifest)
