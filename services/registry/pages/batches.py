"""What a batch was made of, read from the object store: counts, sources, reasons, and a few
examples as they are stored.
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
    """An example in a report; whatever else stands there is not shown."""

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


class _Report(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    samples: tuple[BatchExample, ...]


def batch_view(store: ObjectStore, manifest: Artefact, withdrawn: Collection[str]) -> View:
    """A batch in numbers and examples. Examples that were `withdrawn` are not shown, only counted.
    What cannot be read is a `problem`, and everything else is absent then.
    """
    try:
        found = read_manifest(store, manifest)
        samples = _samples(store, found)
    except RatchetError as error:
        return {"problem": str(error)}
    return {
        "problem": None,
        "kinds": [_kind(found, kind) for kind in EXAMPLE_KINDS],
        "sources": _counted(found, "sources"),
        "feedback_types": _counted(found, "feedback_types"),
        "model_versions": _counted(found, "model_versions"),
        "dropped": sorted_by_count(found.dropped),
        "held_back": sorted_by_count(found.held_back),
        "reasons": [
            (kind, reason, count)
            for kind, counts in found.reasons.items()
            for reason, count in sorted_by_count(counts)
        ],
        "mean_reward": found.mean_reward,
        "feedback_ids": found.feedback_ids,
        "offsets": found.offsets,
        "files": [("data", file.kind, file.artefact) for file in found.files],
        "samples": [sample for sample in samples if sample.feedback_id not in withdrawn],
        "withdrawn": sum(feedback_id in withdrawn for feedback_id in found.feedback_ids),
    }


def sorted_by_count(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _kind(manifest: BatchManifest, kind: ExampleKind) -> View:
    made = manifest.made_of.get(kind)
    counts: Mapping[str, int] = manifest.counts.model_dump()
    return {
        "kind": kind,
        "examples": counts[kind],
        "users": made.users if made else None,
        "reward": made.reward if made else None,
    }


def _counted(manifest: BatchManifest, what: str) -> list[tuple[str, int]]:
    """Members by one of the countings of their composition; preferences are training examples
    again.
    """
    totals: dict[str, int] = {}
    for kind in MEMBER_KINDS:
        made = manifest.made_of.get(kind)
        for name, count in (getattr(made, what) if made else {}).items():
            totals[name] = totals.get(name, 0) + count
    return sorted_by_count(totals)


def _samples(store: ObjectStore, manifest: BatchManifest) -> Sequence[BatchExample]:
    """Those that the report drew; of a batch without a report, the first of each kind."""
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
