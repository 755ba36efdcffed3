"""Contents of a batch, read from the object store: counts, sources, reasons, and a few examples
as stored.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from services.registry.api.views import View
from shared.errors import InvalidArtefact, RatchetError
from shared.events import Artefact, Message
from shared.storage.object_store import ObjectStore, get_verified
from shared.storage.snapshots import (
    EXAMPLE_KINDS,
    MEMBER_KINDS,
    BatchManifest,
    ExampleKind,
    read_examples,
    read_manifest,
)

_SAMPLES = 3


class BatchExample(BaseModel):
    """An example of a batch report; other fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: ExampleKind
    feedback_id: str
    messages: tuple[Message, ...]
    answer: str
    rejected: str | None = None
    feedback_type: str
    reward: float
    quality: float
    model_version: str | None = None
    comment: str | None = None


class _Report(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    samples: tuple[BatchExample, ...]


def batch_view(store: ObjectStore, manifest: Artefact, withdrawn: Collection[str]) -> View:
    """Return counts and examples of a batch. `withdrawn` examples are counted, not shown.

    A batch that cannot be read has only the key `problem`.
    """
    try:
        batch = read_manifest(store, manifest)
        samples = _samples(store, batch)
    except RatchetError as error:
        return {"problem": str(error)}
    return {
        "problem": None,
        "kinds": [_kind(batch, kind) for kind in EXAMPLE_KINDS],
        "sources": _counts(batch, "sources"),
        "feedback_types": _counts(batch, "feedback_types"),
        "model_versions": _counts(batch, "model_versions"),
        "dropped": sorted_by_count(batch.dropped),
        "held_back": sorted_by_count(batch.held_back),
        "reasons": [
            (kind, reason, count)
            for kind, counts in batch.reasons.items()
            for reason, count in sorted_by_count(counts)
        ],
        "mean_reward": batch.mean_reward,
        "feedback_ids": batch.feedback_ids,
        "offsets": batch.offsets,
        "files": [("data", file.kind, file.artefact) for file in batch.files],
        "samples": [sample for sample in samples if sample.feedback_id not in withdrawn],
        "withdrawn": sum(feedback_id in withdrawn for feedback_id in batch.feedback_ids),
    }


def sorted_by_count(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _kind(manifest: BatchManifest, kind: ExampleKind) -> View:
    composition = manifest.made_of.get(kind)
    counts: Mapping[str, int] = manifest.counts.model_dump()
    return {
        "kind": kind,
        "examples": counts[kind],
        "users": composition.users if composition else None,
        "reward": composition.reward if composition else None,
    }


def _counts(manifest: BatchManifest, field: str) -> list[tuple[str, int]]:
    """Sum the counts of one field over the member kinds; preferences are training examples too."""
    totals: dict[str, int] = {}
    for kind in MEMBER_KINDS:
        composition = manifest.made_of.get(kind)
        for name, count in (getattr(composition, field) if composition else {}).items():
            totals[name] = totals.get(name, 0) + count
    return sorted_by_count(totals)


def _samples(store: ObjectStore, manifest: BatchManifest) -> Sequence[BatchExample]:
    """Return the examples of the report; without a report, the first of each kind."""
    try:
        if manifest.report is not None:
            return _Report.model_validate_json(get_verified(store, manifest.report)).samples
        drawn: list[Any] = [
            {"kind": kind, **example.model_dump()}
            for kind in MEMBER_KINDS
            for example in read_examples(store, manifest, kind)[:_SAMPLES]
        ]
        return TypeAdapter(tuple[BatchExample, ...]).validate_python(drawn)
    except ValidationError as error:
        raise InvalidArtefact(
            f"the examples of batch {manifest.batch_id} cannot be read: {error}"
        ) from error
