"""Batch snapshots: data files in JSON Lines, a report as JSON and as Markdown and, written last, a
manifest with the digests of all files.

The dataset service writes them, the trainer and the command line read them. Every manifest of
feedback refers to the previous one of its model and shard, so the held-out set and the replay
window are functions of the newest manifest. The manifest of an imported dataset is outside that
chain: it has shard and number 0, no previous one, and an ID that is a function of its content.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    FiniteFloat,
    JsonValue,
    SerializerFunctionWrapHandler,
    model_serializer,
)

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
from shared.events.hyperparameters import HyperparameterValue, Lane
from shared.identity import digest_of, identity
from shared.storage.object_store import ObjectStore, canonical_json, get_verified

ExampleKind = Literal["training", "preference", "negative", "held_out"]
EXAMPLE_KINDS: tuple[ExampleKind, ...] = ("training", "preference", "negative", "held_out")
MEMBER_KINDS: tuple[ExampleKind, ...] = ("training", "negative", "held_out")
"""The kinds that make up a batch's members, each of them once; a preference is a training example
again, with what it rejects.
"""


class Example(FrozenModel):
    """One line of a snapshot.

    `answer` is the answer to learn (for a negative: to avoid); only a preference has `rejected`.
    `comment` is the user's, for people: it is never trained on. `source` is the document, and the
    place in it, that the answer is from.
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
    comment: str | None = None
    source: str | None = None


class DataFile(FrozenModel):
    """One data file of a snapshot."""

    kind: ExampleKind
    artefact: Artefact
    examples: Annotated[int, Field(ge=0)]


class Summary(FrozenModel):
    """Minimum, mean and maximum of a set of numbers."""

    least: FiniteFloat
    mean: FiniteFloat
    most: FiniteFloat


class UserCounts(FrozenModel):
    """Users of a set of examples: number of distinct users, largest share of one user, and examples
    without a user.
    """

    distinct: Count
    largest_share: Share
    unnamed: Count


class Composition(FrozenModel):
    """Statistics of a set of examples.

    `prompts` and `answers` are numbers of distinct ones. Counts are by feedback type, by the
    version that answered and by CloudEvents source; an empty name stands for examples without the
    value. Without examples `reward` and `quality` are absent.
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
    """The settings under which a batch closed, as the model file gave them.

    Plain JSON, so that it stays readable after a setting is added, renamed or removed. Events that
    were scored before a change of the reward policy keep their reward.
    """

    curation: dict[str, JsonValue]
    reward: dict[str, JsonValue]


class ImportSource(FrozenModel):
    """The file that a dataset was imported from: digest of its bytes, number of records read, and
    number of records that could not be used.

    If `documents` is present, the dataset was built from that number of documents: `digest` is of
    all of them and of the recipe, `lines` counts the examples before all filters, and `errors` the
    files that could not be read.
    """

    digest: Digest
    lines: Count
    errors: Count
    documents: Count | None = None

    @model_serializer(mode="wrap")
    def _omit_absent_documents(self, encode: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Keep the manifest of an imported file as earlier versions wrote it."""
        fields: dict[str, Any] = encode(self)
        if self.documents is None:
            fields.pop("documents", None)
        return fields


class BatchManifest(FrozenModel):
    """Content and origin of a batch.

    `feedback_ids` are its members in order, `positions` their log positions. `reasons` counts the
    members by decision and reason, `dropped` counts by reason the events of the same range that did
    not become members, and `held_back` those that wait for a later batch. `imported` is present in
    the manifest of an imported dataset only, `hyperparameters` in that of a batch whose run
    replaces some of its lane's. Fields with a default are absent from older manifests.
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
    imported: ImportSource | None = None
    hyperparameters: dict[str, HyperparameterValue] | None = None

    def encode(self) -> bytes:
        """Encode as canonical JSON, without the fields of imported datasets that are not set."""
        absent = {name for name in ("imported", "hyperparameters") if getattr(self, name) is None}
        return canonical_json(self.model_dump(mode="json", exclude=absent))


IMPORTED_FOLDER = "imported"
"""Folder of a model's imported datasets, next to the folders of its shards."""


def manifests_folder(model: str) -> str:
    """Folder of the manifests of a model's imported datasets. The key of a manifest is
    `<folder>/<dataset ID>/<hex digest>.json`.
    """
    return f"snapshots/{model}/{IMPORTED_FOLDER}/manifests"


def dataset_identity(manifest: BatchManifest) -> str:
    """Return the ID of an imported dataset: a function of everything in its manifest except the ID
    itself and the two reports, which name the ID.
    """
    content = manifest.model_copy(update={"batch_id": "", "report": None, "page": None})
    return identity("imported", digest_of(content.encode()))


def read_manifest(store: ObjectStore, artefact: Artefact) -> BatchManifest:
    """Read the manifest of an artefact. Raises DigestMismatch when it was altered, Undecodable when
    it is not a manifest.
    """
    try:
        return BatchManifest.model_validate_json(get_verified(store, artefact))
    except ValueError as error:
        raise Undecodable(f"{artefact.uri} is not a manifest: {error}") from error


def read_examples(store: ObjectStore, manifest: BatchManifest, kind: ExampleKind) -> list[Example]:
    """Read the examples of one kind, in the order in which they were written. Raises DigestMismatch
    when a file was altered.
    """
    return [
        Example.model_validate_json(line)
        for file in manifest.files
        if file.kind == kind
        for line in get_verified(store, file.artefact).splitlines()
    ]


def offsets_of(positions: Iterable[Position]) -> tuple[OffsetRange, ...]:
    """Return the offset range that the positions span, per partition."""
    spans: dict[tuple[str, int], list[int]] = {}
    for position in positions:
        spans.setdefault((position.topic, position.partition), []).append(position.offset)
    return tuple(
        OffsetRange(topic=topic, partition=partition, first=min(offsets), last=max(offsets))
        for (topic, partition), offsets in sorted(spans.items())
    )
