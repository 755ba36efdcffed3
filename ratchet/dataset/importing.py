"""`ratchet dataset import`: runs the dataset service's import as a process, prints its report."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import JsonValue
from pydantic_core import from_json

from ratchet import console
from ratchet.options import Json, ModelFiles
from shared.python_command import module_command
from shared.storage.snapshots import EXAMPLE_KINDS

RecordFormats = Annotated[
    str | None,
    typer.Option(
        help="preference, openai-preference, chat, sharegpt, alpaca or completion; "
        "default: recognised by the fields of each record."
    ),
]
Columns = Annotated[
    str | None, typer.Option(help="Names in the file, such as prompt=question,completion=reply.")
]

_FAILED = 1


def import_file(
    file: Annotated[Path, typer.Argument(help="JSON Lines, a JSON array, CSV or Parquet.")],
    model: Annotated[str, typer.Option(help="The model to train on it.")],
    format: RecordFormats = None,
    columns: Columns = None,
    errors: Annotated[
        Path | None,
        typer.Option(help="File for the errors of all lines; default: FILE.errors.jsonl."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check only; write nothing.")] = False,
    models: ModelFiles = Path("models"),
    object_store: Annotated[
        str, typer.Option(envvar="RATCHET_OBJECT_STORE", help="A folder or an fsspec URL.")
    ] = ".ratchet/objects",
    json: Json = False,
) -> None:
    """Import examples from a file as a dataset. The exit status is 0 if the dataset was written, 1
    if it was refused, 2 if the command or the configuration is wrong.
    """
    environment = {"RATCHET_MODELS": str(models), "RATCHET_OBJECT_STORE": object_store}
    status, report = import_report(
        file, model, format, columns, errors, environment, dry_run=dry_run
    )
    if report is None:
        raise typer.Exit(status)
    if json:
        console.print_json(report)
    else:
        show_report(report, model, dry_run=dry_run)
    raise typer.Exit(status)


def import_report(
    file: Path,
    model: str,
    format: str | None,
    columns: str | None,
    errors: Path | None,
    environment: Mapping[str, str],
    *,
    dry_run: bool,
) -> tuple[int, dict[str, Any] | None]:
    """Run an import; return its exit status and its report."""
    arguments = [f"--model={model}"]
    for option, value in (("--format", format), ("--columns", columns), ("--errors", errors)):
        if value is not None:
            arguments.append(f"{option}={value}")
    if dry_run:
        arguments.append("--dry-run")
    return run_service("services.dataset.build", [*arguments, "--", str(file)], environment)


def run_service(
    module: str, arguments: Sequence[str], environment: Mapping[str, str]
) -> tuple[int, dict[str, Any] | None]:
    """Run a process of a service; return its exit status and its JSON output. Without output it
    has printed the reason to standard error.
    """
    finished = subprocess.run(
        module_command(module, *arguments),
        env={**os.environ, **environment},  # noqa: TID251 (passed on to the process as settings)
        stdout=subprocess.PIPE,
        check=False,
    )
    output: dict[str, Any] | None = from_json(finished.stdout) if finished.stdout else None
    failed = finished.returncode < 0 or (output is None and finished.returncode == 0)
    return _FAILED if failed else finished.returncode, output


def show_report(report: dict[str, Any], model: str, *, dry_run: bool) -> None:
    """Print the report of an import for people."""
    rows: list[Sequence[JsonValue]] = [("lines read", report["lines"])]
    rows += [(kind.replace("_", " "), report["examples"][kind]) for kind in EXAMPLE_KINDS]
    rows += [(f"dropped: {reason}", count) for reason, count in report["dropped"].items()]
    rows += [(f"redacted: {kind}", count) for kind, count in report["redacted"].items()]
    rows.append(("lines with errors", report["errors"]))
    console.print_table(("", "number"), rows)
    if report["errors"]:
        console.print_table(
            ("line", "field", "error"),
            [(row["line"], row["field"], row["error"]) for row in report["first_errors"]],
            title=f"The first {len(report['first_errors'])} of {report['errors']} errors",
        )
    if report["errors_file"]:
        console.print_text(f"all errors: {report['errors_file']}")
    show_manifest(report, model, dry_run=dry_run)


def show_manifest(report: dict[str, Any], model: str, *, dry_run: bool) -> None:
    """Print where a report's dataset was written, or why it was refused."""
    if report["refused"]:
        console.print_text(f"refused: {report['refused']}")
        return
    manifest = report["manifest"]
    written = "nothing was written; it would be" if dry_run else "written as"
    console.print_text(
        f"{written} {model}@{report['dataset'][:12]}\n"
        f"manifest: {manifest['uri']}\n"
        f"digest: {manifest['digest']}"
    )
