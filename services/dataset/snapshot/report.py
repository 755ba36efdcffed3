"""What a person wants to know about a batch before anything else, in numbers and a few examples: a
function of the batch alone.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

from pydantic import AwareDatetime

from services.dataset.ledger.results import Closing
from services.dataset.snapshot.contents import LANE, examples_of, with_content
from shared.config.model_file import ModelFile
from shared.events import (
    BatchCounts,
    Count,
    Digest,
    FeedbackType,
    Id,
    Message,
    Name,
    OffsetRange,
    Reward,
    Share,
    Value,
)
from shared.events.hyperparameters import Lane
from shared.identity import share_of
from shared.storage.composition import composition_of
from shared.storage.dataset_entries import Entry
from shared.storage.snapshots import (
    KINDS,
    MEMBER_KINDS,
    Composition,
    Example,
    Kind,
    Policy,
    offsets_of,
)

SAMPLES = 3
_EDGES = tuple(step / 4 - 1 for step in range(9))


class Bin(Value):
    """How many rewards are at least `first` and below `last`; in the last bin, also equal to it."""

    first: Reward
    last: Reward
    examples: Count


class Sample(Value):
    """An example as it stands in the data file, without its user."""

    kind: Kind
    feedback_id: Id
    messages: tuple[Message, ...]
    answer: str
    rejected: str | None = None
    feedback_type: FeedbackType
    reward: Reward
    quality: Share
    model_version: str | None = None


class DatasetReport(Value):
    """A batch in numbers. `reasons` counts its members by decision and reason, `dropped` what
    became no member, `held_back` what waits for a later batch; `rewards` is the distribution over
    all members, `samples` are up to three of each kind, drawn by the hash of their ids. Users stand
    behind counts and shares, never by name.
    """

    model: Name
    model_digest: Digest
    batch_id: Id
    shard: Count
    number: Count
    lane: Lane
    closed_at: AwareDatetime
    counts: BatchCounts
    reasons: dict[str, dict[str, Count]]
    dropped: dict[str, Count]
    held_back: dict[str, Count]
    made_of: dict[Kind, Composition]
    rewards: tuple[Bin, ...]
    offsets: tuple[OffsetRange, ...]
    policy: Policy
    samples: tuple[Sample, ...]


def report_of(closing: Closing, model_file: ModelFile, shard: int) -> DatasetReport:
    """The report of a batch that is full. The same batch has the same report."""
    examples = examples_of(closing)
    return DatasetReport(
        model=model_file.model,
        model_digest=model_file.digest,
        batch_id=closing.batch_id,
        shard=shard,
        number=closing.number,
        lane=LANE,
        closed_at=closing.occurred_at,
        counts=BatchCounts(**{kind: len(examples[kind]) for kind in KINDS}),
        reasons=_reasons(closing.members),
        dropped=dict(sorted(closing.dropped.items())),
        held_back=dict(sorted(closing.held_back.items())),
        made_of={kind: composition_of(examples[kind]) for kind in KINDS},
        rewards=histogram([example.reward for kind in MEMBER_KINDS for example in examples[kind]]),
        offsets=offsets_of(entry.source for entry in closing.members),
        policy=Policy(
            curation=model_file.curation.model_dump(mode="json"),
            reward=model_file.reward.model_dump(mode="json"),
        ),
        samples=tuple(
            _sample(kind, example) for kind in MEMBER_KINDS for example in _drawn(closing, kind)
        ),
    )


def histogram(rewards: Sequence[float]) -> tuple[Bin, ...]:
    """Rewards in eight bins of the same width from -1 to 1."""
    found = Counter(min(bisect_right(_EDGES, reward), len(_EDGES) - 1) - 1 for reward in rewards)
    return tuple(
        Bin(first=first, last=last, examples=found[place])
        for place, (first, last) in enumerate(pairwise(_EDGES))
    )


def _reasons(members: Iterable[Entry]) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {}
    for entry in members:
        counts.setdefault(entry.decision, Counter())[entry.reason] += 1
    return {decision: dict(sorted(reasons.items())) for decision, reasons in sorted(counts.items())}


def _drawn(closing: Closing, kind: Kind) -> list[Example]:
    """A few of a kind that nobody can choose: neither the first, which are corrections, nor by
    anything in them.
    """
    return sorted(
        with_content(closing, kind),
        key=lambda example: share_of("sample", closing.batch_id, example.feedback_id),
    )[:SAMPLES]


def _sample(kind: Kind, example: Example) -> Sample:
    return Sample(kind=kind, **example.model_dump(exclude={"user_id"}))
