"""A full batch as objects and as an event: data files named by their digests, the manifest last, then what announces them."""

from collections.abc import Iterable, Sequence

from services.dataset.ledger import Closing
from shared.entries import ClosedBatch, Entry
from shared.events import Artefact, BatchCounts, BatchReady, OffsetRange
from shared.failpoints import reach_in_thread
from shared.identity import digest_of
from shared.model_file import ModelFile
from shared.snapshots import KINDS, DataFile, Example, Kind, Manifest
from shared.storage import ObjectStore, canonical_json

LANE = "adaptive"


def examples_of(closing: Closing) -> dict[Kind, list[Example]]:
    """The lines of each data file. A correction stands in two: what to learn, and the pair of it and the original."""
    training = _examples(closing.of("training"))
    return {
        "training": [example.model_copy(update={"rejected": None}) for example in training],
        "preference": [example for example in training if example.rejected is not None],
        "negative": _examples(closing.of("negative")),
        "held_out": _examples(closing.of("held_out")),
    }


def write_snapshot(store: ObjectStore, closing: Closing, model_file: ModelFile, shard: int) -> Artefact:
    """Write a batch and return its manifest's claim check. The same batch always has the same objects; writing it again is harmless.
    Raises StorageUnavailable."""
    folder = f"snapshots/{model_file.model}/{shard}"
    examples = examples_of(closing)
    files = tuple(_write_lines(store, folder, kind, examples[kind]) for kind in KINDS)
    reach_in_thread("dataset.data_written")
    training = examples["training"]
    manifest = Manifest(
        batch_id=closing.batch_id,
        model=model_file.model,
        model_digest=model_file.digest,
        shard=shard,
        number=closing.number,
        lane=LANE,
        files=files,
        counts=BatchCounts(**{kind: len(examples[kind]) for kind in KINDS}),
        dropped=closing.dropped,
        offsets=offsets_of(closing.members),
        feedback_ids=tuple(entry.feedback_id for entry in closing.members),
        mean_reward=sum(example.reward for example in training) / len(training),
        previous=closing.previous,
    )
    return _write(store, folder, "json", canonical_json(manifest.model_dump(mode="json")))


def announcement(batch: ClosedBatch, manifest: Manifest) -> BatchReady:
    """The event that says so, a function of what is on record alone: whoever says it again says the same."""
    return BatchReady(
        event_id=manifest.batch_id,
        occurred_at=batch.occurred_at,
        model=manifest.model,
        model_digest=manifest.model_digest,
        batch_id=manifest.batch_id,
        shard=manifest.shard,
        number=manifest.number,
        lane=manifest.lane,
        manifest=batch.manifest,
        counts=manifest.counts,
        offsets=manifest.offsets,
    )


def offsets_of(entries: Iterable[Entry]) -> tuple[OffsetRange, ...]:
    """For each partition, the range of the log that the entries span."""
    spans: dict[tuple[str, int], list[int]] = {}
    for entry in entries:
        spans.setdefault((entry.source.topic, entry.source.partition), []).append(entry.source.offset)
    return tuple(
        OffsetRange(topic=topic, partition=partition, first=min(offsets), last=max(offsets))
        for (topic, partition), offsets in sorted(spans.items())
    )


def _examples(entries: Sequence[Entry]) -> list[Example]:
    return [entry.example for entry in entries if entry.example is not None]


def _write_lines(store: ObjectStore, folder: str, kind: Kind, examples: Sequence[Example]) -> DataFile:
    lines = b"".join(canonical_json(example.model_dump(mode="json", exclude_none=True)) + b"\n" for example in examples)
    return DataFile(kind=kind, artefact=_write(store, folder, "jsonl", lines), examples=len(examples))


def _write(store: ObjectStore, folder: str, suffix: str, data: bytes) -> Artefact:
    return store.put(f"{folder}/{digest_of(data).removeprefix('sha256:')}.{suffix}", data)
