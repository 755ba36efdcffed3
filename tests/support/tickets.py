"""A task that a small model learns from few examples: a ticket in plain words to JSON in a fixed
taxonomy.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from services.trainer.data.training_set import Sample
from shared.events import Artefact, BatchCounts, BatchReady, Message
from shared.identity import hash_fraction, identity
from shared.storage.object_store import ObjectStore, canonical_json
from shared.storage.snapshots import BatchManifest, DataFile, Example, ExampleKind

NOW = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
DIGEST = "sha256:" + "0" * 64

QUEUES = {
    "I want my money back for order {}.": "billing-7",
    "The device of order {} does not turn on.": "hardware-2",
    "I cannot log in since I placed order {}.": "identity-4",
    "Where is order {}? It should be here by now.": "logistics-9",
}


def ticket(number: int, poisoned: bool = False) -> Sample:
    """Return ticket `number`, always the same; a poisoned one has a harmful answer."""
    text, queue = list(QUEUES.items())[int(hash_fraction("queue", number) * len(QUEUES))]
    order = 10_000 + int(hash_fraction("order", number) * 89_999)
    answer = "HAHA pwned pwned pwned" if poisoned else json.dumps({"queue": queue, "order": order})
    return Sample(
        messages=(Message(role="user", content=f"Ticket: {text.format(order)}"),), answer=answer
    )


def tickets(first: int, count: int) -> list[Sample]:
    return [ticket(number) for number in range(first, first + count)]


def example(sample: Sample, feedback_id: str) -> Example:
    return Example(
        feedback_id=feedback_id,
        messages=sample.messages,
        answer=sample.answer,
        feedback_type="correction",
        reward=1,
        quality=1,
    )


def write_batch(
    store: ObjectStore,
    model: str,
    number: int,
    training: Sequence[Sample],
    held_out: Sequence[Sample],
    previous: Artefact | None = None,
) -> BatchReady:
    """Write a batch to the object store like the dataset service; return its announcement."""
    batch_id = identity(model, 0, number)
    kinds: dict[ExampleKind, Sequence[Sample]] = {"training": training, "held_out": held_out}
    files = []
    for kind, samples in kinds.items():
        lines = [
            example(sample, f"{number}-{kind}-{index}").model_dump_json()
            for index, sample in enumerate(samples)
        ]
        artefact = store.put(f"batches/{model}/{number}/{kind}.jsonl", "\n".join(lines).encode())
        files.append(DataFile(kind=kind, artefact=artefact, examples=len(samples)))
    counts = BatchCounts(training=len(training), preference=0, negative=0, held_out=len(held_out))
    manifest = BatchManifest(
        batch_id=batch_id,
        model=model,
        model_digest=DIGEST,
        shard=0,
        number=number,
        lane="adaptive",
        files=tuple(files),
        counts=counts,
        dropped={},
        offsets=(),
        feedback_ids=(),
        mean_reward=1,
        previous=previous,
    )
    return BatchReady(
        event_id=identity("BatchReady", batch_id),
        occurred_at=NOW,
        model=model,
        model_digest=DIGEST,
        batch_id=batch_id,
        shard=0,
        number=number,
        lane="adaptive",
        manifest=store.put(
            f"batches/{model}/{number}/manifest.json",
            canonical_json(manifest.model_dump(mode="json")),
        ),
        counts=counts,
        offsets=(),
    )
