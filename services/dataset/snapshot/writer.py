"""Writer of snapshots: data files and a report named by their digests, and the manifest last."""

from collections.abc import Iterable
from typing import Protocol, TypedDict

from services.dataset.snapshot.content import EncodedReport, SnapshotContent
from shared.events import Artefact
from shared.failpoints import reach_in_thread
from shared.identity import digest_of
from shared.storage.object_store import ObjectStore
from shared.storage.snapshots import EXAMPLE_KINDS, BatchManifest, DataFile, ExampleKind


class ObjectWriter(Protocol):
    """The part of an object store that a snapshot needs."""

    def put(self, key: str, data: bytes) -> Artefact: ...


class ReportArtefacts(TypedDict):
    """The two reports, as a manifest names them."""

    report: Artefact
    page: Artefact


def write_snapshot(store: ObjectStore, content: SnapshotContent) -> Artefact:
    """Write a batch and return its manifest's claim check. Idempotent: the same batch always has
    the same objects. Raises StorageUnavailable.
    """
    report = content.report
    folder = f"snapshots/{report.model}/{report.shard}"
    files = tuple(
        write_data_file(store, folder, kind, content.lines[kind]) for kind in EXAMPLE_KINDS
    )
    reports = write_reports(store, folder, content.encoded_report)
    return write_object(store, folder, "json", _encode_manifest(content, files, reports))


def _encode_manifest(
    content: SnapshotContent, files: tuple[DataFile, ...], reports: ReportArtefacts
) -> bytes:
    plan, report = content.plan, content.report
    training = report.made_of["training"]
    assert training.reward is not None, "a batch has training examples"
    manifest = BatchManifest(
        batch_id=plan.batch_id,
        model=report.model,
        model_digest=report.model_digest,
        shard=report.shard,
        number=plan.number,
        lane=report.lane,
        files=files,
        counts=report.counts,
        dropped=report.dropped,
        offsets=report.offsets,
        feedback_ids=tuple(entry.feedback_id for entry in plan.members),
        mean_reward=training.reward.mean,
        previous=plan.previous,
        positions=tuple(entry.source for entry in plan.members),
        reasons=report.reasons,
        held_back=report.held_back,
        made_of=report.made_of,
        policy=report.policy,
        **reports,
    )
    return manifest.encode()


def write_data_file(
    store: ObjectWriter, folder: str, kind: ExampleKind, lines: Iterable[bytes]
) -> DataFile:
    """Write a data file of encoded examples."""
    encoded = tuple(lines)
    data = b"".join(line + b"\n" for line in encoded)
    return DataFile(
        kind=kind, artefact=write_object(store, folder, "jsonl", data), examples=len(encoded)
    )


def write_reports(store: ObjectWriter, folder: str, report: EncodedReport) -> ReportArtefacts:
    """Write a report after the data files; return its fields in the manifest."""
    reach_in_thread("dataset.data_written")
    return {
        "report": write_object(store, folder, "report.json", report.json),
        "page": write_object(store, folder, "report.md", report.page),
    }


def write_object(store: ObjectWriter, folder: str, suffix: str, data: bytes) -> Artefact:
    """Write an object named by its digest."""
    return store.put(f"{folder}/{digest_of(data).removeprefix('sha256:')}.{suffix}", data)
