"""`ratchet dataset import`: runs the dataset service's import as a process, prints its report."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import JsonValue
from pydantic_core import from_json

from ratchet import console
from ratchet.options import Json, ModelFiles
from shared.storage.snapshots import EXAMPLE_KINDS

_FAILED = 1


def import_file(
    file: Annotated[Path, typer.Argument(help="JSON Lines, a JSON array, CSV or Parquet.")],
    model: Annotated[str, typer.Option(help="The model to train on it.")],
    format: Annotated[
        str | None,
        typer.Option(
            help="preference, openai-preference, chat, sharegpt, alpaca or completion; "
            "default: recognised by the fields of each record."
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(help="Names in the file, such as prompt=question,completion=reply."),
    ] = None,
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
    command = [sys.executable, "-m", "services.dataset.build", f"--model={model}"]
    for option, value in (("--format", format), ("--columns", columns), ("--errors", errors)):
        if value is not None:
            command.append(f"{option}={value}")
    if dry_run:
        command.append("--dry-run")
    command += ["--", str(file)]
    environment = {
        **os.environ,  # noqa: TID251 (passed on to the process, whose settings it contains)
        "RATCHET_MODELS": str(models),
        "RATCHET_OBJECT_STORE": object_store,
    }
    finished = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=False)
    report: dict[str, Any] | None = from_json(finished.stdout) if finished.stdout else None
    if report is None:
        # The process has printed the reason to standard error.
        raise typer.Exit(finished.returncode if finished.returncode > 0 else _FAILED)
    if json:
        console.print_json(report)
    else:
        _show(report, model, dry_run=dry_run)
    raise typer.Exit(finished.returncode)


def _show(report: dict[str, Any], model: str, *, dry_run: bool) -> None:
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
