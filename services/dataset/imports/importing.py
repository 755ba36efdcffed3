"""Import of one file: read, curate, write; with a report of what is wrong, line by line."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from services.dataset.imports.dataset_draft import DatasetDraft
from services.dataset.imports.import_curation import ImportCuration
from services.dataset.imports.reading import ImportedLine, read_file
from services.dataset.imports.records import InvalidLine
from services.dataset.snapshot.writer import ObjectWriter
from shared.config.model_file import ModelFile
from shared.errors import CommandRefused, StorageUnavailable
from shared.events import Artefact, BatchCounts, RecordFormat
from shared.events.hyperparameters import Lane
from shared.identity import digest_of_file
from shared.storage.object_store import canonical_json
from shared.storage.snapshots import ImportSource

MAX_EXAMPLES = 500_000
FIRST_ERRORS = 20
PROGRESS_LINES = 5_000


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """A file to import for a model's lane. `columns` maps names of fields to names in the file;
    `errors_file` receives the errors of all lines, None writes none.
    """

    path: Path
    lane: Lane = "master"
    record_format: RecordFormat | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    errors_file: Path | None = None


@dataclass(frozen=True, slots=True)
class LineReport:
    """The error of a line. `field` is a path into its record, empty for the whole line."""

    line: int
    field: str
    error: str


@dataclass(frozen=True, slots=True)
class ImportReport:
    """Result of an import. `refused` is the reason why there is no dataset."""

    lines: int
    examples: BatchCounts
    dropped: Mapping[str, int]
    redacted: Mapping[str, int]
    errors: int
    first_errors: tuple[LineReport, ...]
    errors_file: Path | None
    refused: str | None = None
    dataset: str | None = None
    manifest: Artefact | None = None


@dataclass
class _Progress:
    lines: int = 0
    errors: int = 0
    first_errors: list[LineReport] = field(default_factory=list)


def import_file(
    request: ImportRequest,
    model_file: ModelFile,
    curation: ImportCuration,
    store: ObjectWriter,
    report_progress: Callable[[str], None],
) -> ImportReport:
    """Import a file. The dataset is written after the whole file was read, its manifest last, so
    that a repeated import writes the same objects.

    Lines with errors are reported and left out. Raises CommandRefused for a file that cannot be
    read to its end or changes meanwhile, StorageUnavailable.
    """
    digest = _digest_of(request.path)
    progress = _Progress()
    with DatasetDraft() as draft:
        with _error_lines(request.errors_file) as report_line:
            for line in read_file(request.path, request.record_format, request.columns):
                progress.lines += 1
                _import_line(line, curation, draft, progress, report_line)
                if draft.members > MAX_EXAMPLES:
                    raise CommandRefused(
                        f"{request.path} has more than {MAX_EXAMPLES:,} examples; split it"
                    )
                if progress.lines % PROGRESS_LINES == 0:
                    report_progress(_summary(progress, draft))
        if _digest_of(request.path) != digest:
            raise CommandRefused(f"{request.path} was changed while it was read; import it again")
        report_progress(_summary(progress, draft))
        refused = _refusal(request.path, progress, draft, model_file)
        dataset = manifest = None
        if refused is None:
            source = ImportSource(digest=digest, lines=progress.lines, errors=progress.errors)
            dataset, manifest = draft.write(store, model_file, request.lane, source)
        return ImportReport(
            lines=progress.lines,
            examples=draft.counts,
            dropped=dict(sorted(draft.dropped.items())),
            redacted=dict(sorted(draft.redactions.items())),
            errors=progress.errors,
            first_errors=tuple(progress.first_errors),
            errors_file=request.errors_file if progress.errors else None,
            refused=refused,
            dataset=dataset,
            manifest=manifest,
        )


def _import_line(
    line: ImportedLine,
    curation: ImportCuration,
    draft: DatasetDraft,
    progress: _Progress,
    report_line: Callable[[LineReport], None],
) -> None:
    error = line.error
    if error is None:
        try:
            curated = curation.curate(line.examples)
        except InvalidLine as broken:
            error = broken
        else:
            for example in curated:
                draft.add(example)
            return
    progress.errors += 1
    report = LineReport(line.line, error.field, error.reason)
    report_line(report)
    if len(progress.first_errors) < FIRST_ERRORS:
        progress.first_errors.append(report)


def _refusal(
    path: Path, progress: _Progress, draft: DatasetDraft, model_file: ModelFile
) -> str | None:
    """Reason why the examples are no dataset, None if they are one."""
    least, training = model_file.curation.smallest_batch, draft.counts.training
    if training >= least:
        return None
    if not progress.lines:
        return f"{path} is empty"
    if progress.errors == progress.lines:
        return f"no line of {path} can be used; the first errors say why"
    dropped = ", ".join(f"{count} {reason}" for reason, count in draft.dropped.most_common())
    return (
        f"{training} training examples are left of {progress.lines} lines ({progress.errors} "
        f"errors; dropped: {dropped or 'none'}; held out: {draft.counts.held_out}); a dataset of "
        f"{model_file.model} needs {least} (curation.smallest_batch)"
    )


def _digest_of(path: Path) -> str:
    if not path.is_file():
        raise CommandRefused(f"{path} is not a file")
    try:
        return digest_of_file(path)
    except OSError as error:
        raise CommandRefused(f"{path} cannot be read: {error.strerror or error}") from error


@contextmanager
def _error_lines(path: Path | None) -> Iterator[Callable[[LineReport], None]]:
    """Write reports to a file as JSON Lines. It replaces that of an earlier import at the end;
    without errors, no file stays.
    """
    if path is None:
        yield lambda _: None
        return
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            yield lambda report: _write_report(file, report)
            is_empty = file.tell() == 0
        if is_empty:
            path.unlink(missing_ok=True)
        else:
            partial.replace(path)
    except OSError as error:
        raise StorageUnavailable(
            f"{path} cannot be written: {error.strerror or error}; --errors names another file"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _write_report(file: IO[bytes], report: LineReport) -> None:
    value = {"line": report.line, "field": report.field, "error": report.error}
    file.write(canonical_json(value) + b"\n")


def _summary(progress: _Progress, draft: DatasetDraft) -> str:
    return (
        f"{progress.lines:,} lines read: {draft.members:,} examples, "
        f"{draft.dropped.total():,} dropped, {progress.errors:,} errors"
    )
