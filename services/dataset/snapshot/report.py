"""Report of a batch in numbers and a few examples, as a function of the batch alone."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from pydantic import AwareDatetime, SerializerFunctionWrapHandler, model_serializer

from services.dataset.ledger.results import BatchPlan
from services.dataset.snapshot.batch_examples import LANE, examples_of, examples_with_decision
from shared.config.model_file import ModelFile
from shared.events import (
    BatchCounts,
    Count,
    Digest,
    FeedbackType,
    FrozenModel,
    Id,
    Message,
    Name,
    OffsetRange,
    Reward,
    Share,
)
from shared.events.hyperparameters import Lane
from shared.identity import hash_fraction
from shared.storage.composition import composition_of
from shared.storage.dataset_entries import DatasetEntry
from shared.storage.object_store import canonical_json
from shared.storage.snapshots import (
    EXAMPLE_KINDS,
    MEMBER_KINDS,
    Composition,
    Example,
    ExampleKind,
    ImportSource,
    PolicySnapshot,
    offsets_of,
)

SAMPLES_PER_KIND = 3
_EDGES = tuple(step / 4 - 1 for step in range(9))


class RewardBin(FrozenModel):
    """Number of rewards in [first, last). The last bin includes `last`."""

    first: Reward
    last: Reward
    examples: Count


class SampledExample(FrozenModel):
    """An example as in its data file, without its user."""

    kind: ExampleKind
    feedback_id: Id
    messages: tuple[Message, ...]
    answer: str
    rejected: str | None = None
    feedback_type: FeedbackType
    reward: Reward
    quality: Share
    model_version: str | None = None
    comment: str | None = None
    source: str | None = None

    @model_serializer(mode="wrap")
    def _omit_absent(self, encode: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Keep the report of a batch without comments or documents as earlier versions wrote it."""
        fields: dict[str, Any] = encode(self)
        for name in ("comment", "source"):
            if fields.get(name) is None:
                fields.pop(name, None)
        return fields


class DatasetReport(FrozenModel):
    """A batch in numbers. `reasons` counts its members by decision and reason, `dropped` the events
    that did not become members, `held_back` those deferred to a later batch. `rewards` is the
    distribution over all members. `samples` are up to three examples of each kind, drawn by the
    hash of their IDs. Users are counted, never named. The report of an imported dataset has
    `imported`, and no time, since the same file always has the same report.
    """

    model: Name
    model_digest: Digest
    batch_id: Id
    shard: Count
    number: Count
    lane: Lane
    closed_at: AwareDatetime | None
    counts: BatchCounts
    reasons: dict[str, dict[str, Count]]
    dropped: dict[str, Count]
    held_back: dict[str, Count]
    made_of: dict[ExampleKind, Composition]
    rewards: tuple[RewardBin, ...]
    offsets: tuple[OffsetRange, ...]
    policy: PolicySnapshot
    samples: tuple[SampledExample, ...]
    imported: ImportSource | None = None

    def encode(self) -> bytes:
        """Encode as canonical JSON, in which a batch of feedback has no field `imported`."""
        absent = {"imported"} if self.imported is None else set()
        return canonical_json(self.model_dump(mode="json", exclude=absent))


def report_of(plan: BatchPlan, model_file: ModelFile, shard: int) -> DatasetReport:
    """Make the report of a batch. The same batch always has the same report."""
    examples = examples_of(plan)
    return DatasetReport(
        model=model_file.model,
        model_digest=model_file.digest,
        batch_id=plan.batch_id,
        shard=shard,
        number=plan.number,
        lane=LANE,
        closed_at=plan.occurred_at,
        counts=BatchCounts(**{kind: len(examples[kind]) for kind in EXAMPLE_KINDS}),
        reasons=_reasons(plan.members),
        dropped=dict(sorted(plan.dropped.items())),
        held_back=dict(sorted(plan.deferred.items())),
        made_of={kind: composition_of(examples[kind]) for kind in EXAMPLE_KINDS},
        rewards=histogram([example.reward for kind in MEMBER_KINDS for example in examples[kind]]),
        offsets=offsets_of(entry.source for entry in plan.members),
        policy=policy_snapshot(model_file),
        samples=tuple(
            sample_of(kind, example)
            for kind in MEMBER_KINDS
            for example in _draw_samples(plan, kind)
        ),
    )


def policy_snapshot(model_file: ModelFile) -> PolicySnapshot:
    """Copy the settings that decide about a snapshot's examples. Trusted users are counted, not
    named.
    """
    curation = model_file.curation.model_dump(mode="json")
    if model_file.curation.trusted_users:
        curation["trusted_users"] = len(model_file.curation.trusted_users)
    return PolicySnapshot(
        curation=curation,
        reward=model_file.reward.model_dump(mode="json"),
    )


def histogram(rewards: Sequence[float]) -> tuple[RewardBin, ...]:
    """Count rewards in eight bins of equal width from -1 to 1."""
    counts = Counter(min(bisect_right(_EDGES, reward), len(_EDGES) - 1) - 1 for reward in rewards)
    return tuple(
        RewardBin(first=first, last=last, examples=counts[place])
        for place, (first, last) in enumerate(pairwise(_EDGES))
    )


def _reasons(members: Iterable[DatasetEntry]) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {}
    for entry in members:
        counts.setdefault(entry.decision, Counter())[entry.reason] += 1
    return {decision: dict(sorted(reasons.items())) for decision, reasons in sorted(counts.items())}


def _draw_samples(plan: BatchPlan, kind: ExampleKind) -> list[Example]:
    """Draw a few examples of a kind by hash: not the first ones, which are corrections, and by
    nothing that their authors can influence.
    """
    return sorted(
        examples_with_decision(plan, kind),
        key=lambda example: hash_fraction("sample", plan.batch_id, example.feedback_id),
    )[:SAMPLES_PER_KIND]


def sample_of(kind: ExampleKind, example: Example) -> SampledExample:
    """Copy an example without its user."""
    return SampledExample(kind=kind, **example.model_dump(exclude={"user_id"}))
