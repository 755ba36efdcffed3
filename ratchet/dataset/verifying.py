"""Verification of a batch, and of the chain of earlier batches, against the object store."""

from dataclasses import dataclass

from ratchet.dataset.checks import (
    REPORT_A_BUG,
    CrossBatchChecks,
    Examples,
    Fault,
    announcement_faults,
    batch_faults,
    batch_name,
    link_faults,
)
from shared.errors import InvalidArtefact, Undecodable
from shared.events import Artefact, BatchReady
from shared.storage.object_store import ObjectStore, get_verified
from shared.storage.snapshots import (
    EXAMPLE_KINDS,
    BatchManifest,
    Example,
    ExampleKind,
    read_examples,
    read_manifest,
)

_RESTORE = "restore it from a copy of the object store; no run can use this batch until then"
_RESTORE_REPORT = "restore it from a copy of the object store; training does not need it"
_CHAIN_ENDS = (
    "restore it from a copy of the object store; if old snapshots were deleted on purpose, the "
    "history begins here"
)


@dataclass(frozen=True)
class VerifiedBatches:
    """The verified batches, newest first, and their faults."""

    batches: tuple[str, ...]
    faults: tuple[Fault, ...]


def verify_batches(
    store: ObjectStore, newest: Artefact, announced: BatchReady | None = None, *, whole_chain: bool
) -> VerifiedBatches:
    """Read a batch, or with `whole_chain` every batch back to the first, and check its objects,
    counts, IDs and links. For a single batch, the manifest of the batch before is read as well.
    Raises StorageUnavailable if the object store is unavailable, which is no fault of a batch.
    """
    names: list[str] = []
    faults: list[Fault] = []
    across = CrossBatchChecks()
    manifest: BatchManifest | None = None
    try:
        manifest = read_manifest(store, newest)
    except (InvalidArtefact, Undecodable) as error:
        faults.append(Fault(newest.uri, f"the manifest cannot be read: {error}", _RESTORE))
    if manifest and announced:
        faults += announcement_faults(manifest, announced)
    while manifest:
        names.append(batch_name(manifest))
        examples = _examples(store, manifest, faults)
        _check_reports(store, manifest, faults)
        faults += batch_faults(manifest, examples)
        faults += across.faults_of(manifest, examples)
        previous = _previous(store, manifest, faults)
        manifest = previous if whole_chain else None
    return VerifiedBatches(tuple(names), tuple(faults))


def _previous(
    store: ObjectStore, manifest: BatchManifest, faults: list[Fault]
) -> BatchManifest | None:
    if manifest.previous is None:
        return None
    try:
        previous = read_manifest(store, manifest.previous)
    except (InvalidArtefact, Undecodable) as error:
        faults.append(
            Fault(
                batch_name(manifest),
                f"the chain ends here: the manifest of the batch before cannot be read: {error}",
                _CHAIN_ENDS,
            )
        )
        return None
    faults += link_faults(manifest, previous)
    return previous


def _examples(store: ObjectStore, manifest: BatchManifest, faults: list[Fault]) -> Examples:
    """Read the examples of each kind whose files are intact. Add the other files to `faults`."""
    examples: dict[ExampleKind, list[Example]] = {}
    for kind in EXAMPLE_KINDS:
        try:
            examples[kind] = read_examples(store, manifest, kind)
        except InvalidArtefact as error:
            faults.append(Fault(batch_name(manifest), f"{kind} examples: {error}", _RESTORE))
        except ValueError as error:
            faults.append(
                Fault(
                    batch_name(manifest),
                    f"{kind} examples cannot be parsed: {' '.join(str(error).split())}",
                    REPORT_A_BUG,
                )
            )
    return examples


def _check_reports(store: ObjectStore, manifest: BatchManifest, faults: list[Fault]) -> None:
    for artefact in (manifest.report, manifest.page):
        try:
            if artefact:
                get_verified(store, artefact)
        except InvalidArtefact as error:
            faults.append(Fault(batch_name(manifest), f"report: {error}", _RESTORE_REPORT))
