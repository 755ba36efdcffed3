"""Writer of snapshots: data files and a report named by their digests, and the manifest last."""

from collections.abc import Sequence

from services.dataset.ledger.results import BatchPlan
from services.dataset.snapshot.batch_examples import LANE, examples_of
from services.dataset.snapshot.report import report_of
from services.dataset.snapshot.report_page import render_page
from shared.config.model_file import ModelFile
from shared.events import Artefact
from shared.failpoints import reach_in_thread
from shared.identity import digest_of
from shared.storage.object_store import ObjectStore, canonical_json
from shared.storage.snapshots import EXAMPLE_KINDS, BatchManifest, DataFile, Example, ExampleKind


def write_snapshot(
    store: ObjectStore, plan: BatchPlan, model_file: ModelFile, shard: int
) -> Artefact:
    """Write a batch and return its manifest's claim check. Idempotent: the same batch always has
    the same objects. Raises StorageUnavailable.
    """
    folder = f"snapshots/{model_file.model}/{shard}"
    examples = examples_of(plan)
    report = report_of(plan, model_file, shard)
    files = tuple(_write_lines(store, folder, kind, examples[kind]) for kind in EXAMPLE_KINDS)
    training = report.made_of["training"]
    assert training.reward is not None, "a batch has training examples"
    reach_in_thread("dataset.data_written")
    manifest = BatchManifest(
        batch_id=plan.batch_id,
        model=model_file.model,
        model_digest=report.model_digest,
        shard=shard,
        number=plan.number,
        lane=LANE,
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
        report=_write(store, folder, "report.json", canonical_json(report.model_dump(mode="json"))),
        page=_write(store, folder, "report.md", render_page(report).encode()),
    )
    return _write(store, folder, "json", canonical_json(manifest.model_dump(mode="json")))


def _write_lines(
    store: ObjectStore, folder: str, kind: ExampleKind, examples: Sequence[Example]
) -> DataFile:
    lines = b"".join(
        canonical_json(example.model_dump(mode="json", exclude_none=True)) + b"\n"
        for example in examples
    )
    return DataFile(
        kind=kind, artefact=_write(store, folder, "jsonl", lines), examples=len(examples)
    )


def _write(store: ObjectStore, folder: str, suffix: str, data: bytes) -> Artefact:
    return store.put(f"{folder}/{digest_of(data).removeprefix('sha256:')}.{suffix}", data)
