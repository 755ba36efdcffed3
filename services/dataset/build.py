"""Composition root of datasets: `python -m services.dataset.build FILE --model MODEL` imports a
file, with `--documents FOLDER` instead of FILE it builds a dataset from documents.

A process of its own: reading and comparing a large file would stop the stream's heartbeats. It ends
with one JSON object on standard output; progress is on standard error. Exit status: 0 when the
dataset is written, 1 when it is refused or something is unavailable, 2 when the command or the
configuration is wrong. A repeated command writes the same objects.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from pydantic_core import to_json

from services.dataset.build_settings import BuildSettings
from services.dataset.build_teacher import teacher_of
from services.dataset.building.dataset_building import BuildReport, BuildRequest, build_dataset
from services.dataset.building.recipe import read_recipe
from services.dataset.dataset_import import curation_of, redactor_of
from services.dataset.imports.importing import ImportReport, ImportRequest, import_file
from services.dataset.snapshot.writer import ObjectWriter
from services.dataset.sources.isolated_reader import IsolatedReader
from shared.config.models import load_models
from shared.config.settings import read_settings
from shared.errors import Misconfigured, RatchetError
from shared.events import Artefact, RecordFormat
from shared.failpoints import arm
from shared.identity import digest_of
from shared.logs import configure
from shared.service.exit_status import CLEAN, FAILED, MISCONFIGURED
from shared.storage.object_store import FsspecStore


class _DryRunStore:
    """Names objects as a store does, and writes none."""

    def put(self, key: str, data: bytes) -> Artefact:
        return Artefact(uri=key, digest=digest_of(data))


def build(arguments: argparse.Namespace, settings: BuildSettings) -> ImportReport | BuildReport:
    """Import the file or build from the documents of the arguments. Raises RatchetError."""
    arm(settings.failpoints, configure("build", settings.log_level, settings.log_format))
    models = load_models(settings.models)
    model_file = models.require(arguments.model)
    store: ObjectWriter = (
        _DryRunStore() if arguments.dry_run else FsspecStore(settings.object_store)
    )
    redactor = redactor_of(model_file, settings)
    curation = curation_of(models, model_file, redactor)
    if arguments.documents is not None:
        recipe = read_recipe(arguments.recipe)
        teach = (
            teacher_of(
                recipe.teacher, settings, redactor, _report_progress, is_plan=arguments.dry_run
            )
            if recipe.teacher
            else None
        )
        build_request = BuildRequest(arguments.documents, recipe, quick=arguments.quick)
        with IsolatedReader() as reader:
            return build_dataset(
                build_request, model_file, curation, store, reader.read, _report_progress, teach
            )
    path: Path = arguments.file
    request = ImportRequest(
        path,
        record_format=arguments.format,
        columns=arguments.columns,
        errors_file=None
        if arguments.dry_run
        else arguments.errors or path.with_name(f"{path.name}.errors.jsonl"),
    )
    return import_file(request, model_file, curation, store, _report_progress)


def _report_progress(progress: str) -> None:
    print(f"import: {progress}", file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Import or build a dataset and return the exit status."""
    try:
        report = build(_parser().parse_args(argv), read_settings(BuildSettings))
    except Misconfigured as error:
        print(f"import: {error}", file=sys.stderr)
        return MISCONFIGURED
    except (RatchetError, OSError) as error:
        print(f"import: {error}; no dataset was written", file=sys.stderr)
        return FAILED
    print(to_json(report).decode(), flush=True)
    return CLEAN if report.refused is None else FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m services.dataset.build")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("file", type=Path, nargs="?")
    source.add_argument("--documents", type=Path, metavar="FOLDER")
    parser.add_argument("--model", required=True)
    parser.add_argument("--format", choices=get_args(RecordFormat))
    parser.add_argument("--columns", type=_columns, default={}, metavar="FIELD=NAME,...")
    parser.add_argument("--errors", type=Path, help="default: FILE.errors.jsonl")
    parser.add_argument("--recipe", type=Path, help="with --documents: wording and templates")
    parser.add_argument("--quick", action="store_true", help="with --documents: a smaller dataset")
    parser.add_argument("--dry-run", action="store_true")
    return parser


def _columns(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(name.strip() and source.strip() for name, _, source in pairs):
        raise argparse.ArgumentTypeError("expected FIELD=NAME,..., such as prompt=question")
    return {name.strip(): source.strip() for name, _, source in pairs}


if __name__ == "__main__":
    sys.exit(main())
