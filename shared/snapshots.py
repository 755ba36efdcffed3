"""What a batch is on disk: data files in JSON Lines and, written last, a manifest that names them with their digests.

The dataset service writes them, the trainer reads them. Every manifest names the one before it of its model and shard, so the
held-out set and the replay window are functions of the newest manifest.
"""

from typing import Annotated, Literal

from pydantic import Field, FiniteFloat

from shared.errors import Undecodable
from shared.events import Artefact, BatchCounts, Digest, FeedbackType, Id, Message, Name, OffsetRange, Reward, Share, Value
from shared.storage import ObjectStore, get_verified
from shared.training_config import Lane

Kind = Literal["training", "preference", "negative", "held_out"]
KINDS: tuple[Kind, ...] = ("training", "preference", "negative", "held_out")


class Example(Value):
    """One line of a snapshot. `answer` is what to learn (for a negative: what to avoid); `rejected` stands in a preference only."""

    feedback_id: Id
    messages: tuple[Message, ...]
    answer: str
    rejected: str | None = None
    feedback_type: FeedbackType
    reward: Reward
    quality: Share
    model_version: str | None = None
    user_id: str | None = None


class DataFile(Value):
    """One data file of a snapshot."""

    kind: Kind
    artefact: Artefact
    examples: Annotated[int, Field(ge=0)]


class Manifest(Value):
    """What a batch consists of, and what it was made from."""

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


def read_manifest(store: ObjectStore, artefact: Artefact) -> Manifest:
    """The manifest behind a claim check. Raises Corrupt when it was altered, Undecodable when it is none."""
    try:
        return Manifest.model_validate_json(get_verified(store, artefact))
    except ValueError as error:
        raise Undecodable(f"{artefact.uri} is not a manifest: {error}") from error


def read_examples(store: ObjectStore, manifest: Manifest, kind: Kind) -> list[Example]:
    """The examples of one kind, in the order in which they were written. Raises Corrupt when a file was altered."""
    return [
        Example.model_validate_json(line)
        for file in manifest.files
        if file.kind == kind
        for line in get_verified(store, file.artefact).splitlines()
    ]
