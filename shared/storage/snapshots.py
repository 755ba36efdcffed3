"""What a batch is on disk: data files in JSON Lines, a report as JSON and as a page and, written
last, a manifest that names them all with their digests.

The dataset service writes them, the trainer and the command line read them. Every manifest names
the one before it of its model and shard, so the held-out set and the replay window are functions of
the newest manifest.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

from pydantic import Field, FiniteFloat, JsonValue

from shared.errors import Undecodable
from shared.events import (
    Artefact,
    BatchCounts,
    Count,
    Digest,
    FeedbackType,
    FrozenModel,
    Id,
    Message,
    Name,
    OffsetRange,
    Position,
    Reward,
    Share,
)
from shared.events.hyperparameters import Lane
from shared.storage.object_store import ObjectStore, get_verified

ExampleKind = Literal["training", "preference", "negative", "held_out"]
EXAMPLE_KINDS: tuple[ExampleKind, ...] = ("training", "preference", "negative", "held_out")
MEMBER_KINDS: tuple[ExampleKind, ...] = ("training", "negative", "held_out")
"""The kinds that make up a batch's members, each of them once; a preference is a training example
again, with what it rejects.
"""


class Example(FrozenModel):
    """One line of a snapshot. `answer` is what to learn (for a negative: what to avoid); `rejected`
    stands in a preference only.
    """

    feedback_id: Id
    messages: tuple[Message, ...]
    answer: str
    rejected: str | None = None
    feedback_type: FeedbackType
    reward: Reward
    quality: Share
    model_version: str | None = None
    user_id: str | None = None


class DataFile(FrozenModel):
    """One data file of a snapshot."""

    kind: ExampleKind
    artefact: Artefact
    examples: Annotated[int, Field(ge=0)]


class Summary(FrozenModel):
    """Some numbers in short."""

    least: FiniteFloat
    mean: FiniteFloat
    most: FiniteFloat


class UserCounts(FrozenModel):
    """Who stands behind some examples: how many different users, the largest part of the examples
    that is one user's, and how many examples name no user.
    """

    distinct: Count
    largest_share: Share
    unnamed: Count


class Composition(FrozenModel):
    """Some examples in numbers. `prompts` and `answers` are how many different ones there are.
    Counts are by kind of feedback, by the version that answered and by the CloudEvents source; an
    empty name stands for examples that do not say. Without examples there is no reward and no
    quality.
    """

    examples: Count
    prompts: Count
    answers: Count
    users: UserCounts
    feedback_types: dict[str, Count]
    model_versions: dict[str, Count]
    sources: dict[str, Count]
    reward: Summary | None = None
    quality: Summary | None = None


class PolicySnapshot(FrozenModel):
    """The settings under which a batch closed, as the model file gave them. Plain JSON: what was in
    force then reads the same after a setting has been added, renamed or dropped. An event that was
    scored before the reward policy changed kept the reward that it had.
    """

    curation: dict[str, JsonValue]
    reward: dict[str, JsonValue]


class BatchManifest(FrozenModel):
    """What a batch consists of, and what it was made from.

    `feedback_ids` are its members in their order, `positions` where each of them stands in the log.
    `reasons` counts the members by decision and reason, `dropped` by reason the events of the same
    stretch that became none, and `held_back` those that wait for a later batch. Fields with a
    default are absent from manifests that were written before there were any.
    """

    batch_id: Id
    model: Name
    model_digest: Digest
    shard: int
    number: int
    lane: Lane
    files: tuple[DataFile, ...]
    counts: BatchCounts
    dropped: dict[str, int]
    offsets: tuple[OffsetRange, ...]
    feedback_ids: tuple[Id, ...]
    mean_reward: FiniteFloat
    previous: Artefact | None
    positions: tuple[Position, ...] = ()
    reasons: Mapping[str, Mapping[str, Count]] = {}
    held_back: Mapping[str, Count] = {}
    made_of: Mapping[ExampleKind, Composition] = {}
    policy: PolicySnapshot | None = None
    report: Artefact | None = None
    page: Artefact | None = None


def read_manifest(store: ObjectStore, artefact: Artefact) -> BatchManifest:
    """The manifest behind a claim check. Raises Corrupt when it was altered, Undecodable when it is
    none.
    """
    try:
        return BatchManifest.model_validate_json(get_verified(store, artefact))
    except ValueError as error:
        raise Undecodable(f"{artefact.uri} is not a manifest: {error}") from error


def read_examples(store: ObjectStore, manifest: BatchManifest, kind: ExampleKind) -> list[Example]:
    """The examples of one kind, in the order in which they were written. Raises Corrupt when a file
    was altered.
    """
    return [
        Example.model_validate_json(line)
        for file in manifest.files
        if file.kind == kind
        for line in get_verified(store, file.artefact).splitlines()
    ]


def offsets_of(positions: Iterable[Position]) -> tuple[OffsetRange, ...]:
    """For each partition, the range of the log that some positions span."""
    spans: dict[tuple[str, int], list[int]] = {}
    for position in positions:
        spans.setdefault((position.topic, position.partition), []).append(position.offset)
    return tuple(
        OffsetRange(topic=topic, partition=partition, first=min(offsets), last=max(offsets))
        for (topic, partition), offsets in sorted(spans.items())
    )
