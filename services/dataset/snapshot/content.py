"""Content of a snapshot's files, as a function of the batch alone."""

from collections.abc import Mapping
from dataclasses import dataclass

from services.dataset.ledger.results import BatchPlan
from services.dataset.snapshot.batch_examples import examples_of
from services.dataset.snapshot.report import DatasetReport, report_of
from services.dataset.snapshot.report_page import render_page
from shared.config.model_file import ModelFile
from shared.storage.object_store import canonical_json
from shared.storage.snapshots import EXAMPLE_KINDS, Example, ExampleKind


@dataclass(frozen=True, slots=True)
class EncodedReport:
    """A report as JSON and as a page."""

    json: bytes
    page: bytes


@dataclass(frozen=True, slots=True)
class SnapshotContent:
    """A batch with its report and the lines of its data files, without line ends."""

    plan: BatchPlan
    report: DatasetReport
    lines: Mapping[ExampleKind, tuple[bytes, ...]]
    encoded_report: EncodedReport


def snapshot_content(plan: BatchPlan, model_file: ModelFile, shard: int) -> SnapshotContent:
    """Make the content of a batch's snapshot. The same batch always has the same content."""
    examples = examples_of(plan)
    report = report_of(plan, model_file, shard)
    lines = {kind: tuple(map(encode_example, examples[kind])) for kind in EXAMPLE_KINDS}
    return SnapshotContent(plan, report, lines, encode_report(report))


def encode_example(example: Example) -> bytes:
    """Encode an example as the line of a data file, without the line end."""
    return canonical_json(example.model_dump(mode="json", exclude_none=True))


def encode_report(report: DatasetReport) -> EncodedReport:
    """Encode a report as JSON, and render its page."""
    return EncodedReport(report.encode(), render_page(report).encode())
