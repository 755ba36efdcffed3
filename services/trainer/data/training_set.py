"""What a run learns from and what it is judged on: a function of the manifests of a model's shard,
newest first, of the batch's id, and of what was quarantined and withdrawn when the run began.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated

from pydantic import Field

from shared.errors import InvalidArtefact, ObjectNotFound, Undecodable
from shared.events import Artefact, FrozenModel, Id, Message
from shared.identity import hash_fraction
from shared.storage.object_store import ObjectStore
from shared.storage.snapshots import (
    BatchManifest,
    Example,
    ExampleKind,
    read_examples,
    read_manifest,
)

MIN_WEIGHT = 0.05
"""What an example counts at least, however low its quality: curation has let it in."""


class Sample(FrozenModel):
    """A prompt and the answer to learn, or to be judged by. `weight` is what it counts where it is
    learned.
    """

    messages: tuple[Message, ...]
    answer: str
    weight: Annotated[float, Field(gt=0, le=1)] = 1.0


class PreferencePair(FrozenModel):
    """A prompt with the answer that was preferred and the one that it replaces."""

    messages: tuple[Message, ...]
    answer: str
    rejected: str


@dataclass(frozen=True)
class BatchExamples:
    """A batch's examples, as its manifest gives them; preferences and negatives of the batch to
    train on only.
    """

    batch_id: Id
    training: Sequence[Example]
    held_out: Sequence[Example]
    preference: Sequence[Example] = ()
    negative: Sequence[Example] = ()

    def without(self, feedback_ids: Collection[Id]) -> "BatchExamples":
        """The same batch without some of its examples."""
        kinds = (self.training, self.held_out, self.preference, self.negative)
        return BatchExamples(
            self.batch_id,
            *(
                [example for example in kind if example.feedback_id not in feedback_ids]
                for kind in kinds
            ),
        )


@dataclass(frozen=True)
class TrainingSet:
    """The examples of one run. No prompt is on both sides. `withdrawn` is how many the batch to
    train on has lost by withdrawal, `mean_reward` that of the new examples.

    `pairs` are corrections over what they replaced, `negatives` answers that were disliked, `liked`
    the new examples that nobody had to correct; all of them of the batch to train on.
    """

    new: Sequence[Sample]
    replayed: Sequence[Sample]
    held_out: Sequence[Sample]
    withdrawn: int = 0
    mean_reward: float | None = None
    pairs: Sequence[PreferencePair] = ()
    negatives: Sequence[Sample] = ()
    liked: Sequence[Sample] = ()


def select_examples(
    batches: Iterable[BatchExamples],
    quarantined: Collection[Id],
    golden_prompts: Collection[tuple[Message, ...]],
    *,
    withdrawn: Collection[Id] = frozenset(),
    training_set: int,
    replay: int,
    replay_window: int,
    held_out_newest: int,
) -> TrainingSet:
    """Choose from `batches`, newest first, of which the first is the one to train on.

    Replay is drawn from the newest `replay_window` examples before it: the `replay` ones whose ids
    hash lowest together with the batch's id, or as many as make up `training_set` with the new
    ones. New examples are never left out for that: what a version was made of is what its batch
    names. Held-out is the newest `held_out_newest`. Quarantined batches give neither. What has a
    held-out or a golden prompt is never trained on, in whatever way. Examples whose feedback was
    `withdrawn` count as if they had never been. An answer that is learned is never unlearned for
    the same prompt, and a quarantined batch gives no pairs and no negatives. Draws from `batches`
    only as far as both windows reach.
    """
    stream = iter(batches)
    whole = next(stream)
    current = whole.without(withdrawn)
    earlier: list[Example] = []
    held_out: list[Example] = (
        [] if current.batch_id in quarantined else list(reversed(current.held_out))
    )
    while len(earlier) < (replay_window if replay else 0) or len(held_out) < held_out_newest:
        batch = next(stream, None)
        if batch is None:
            break
        if batch.batch_id not in quarantined:
            batch = batch.without(withdrawn)
            earlier += reversed(batch.training)
            held_out += reversed(batch.held_out)
    held_out = held_out[:held_out_newest]
    kept_back = {example.messages for example in held_out} | set(golden_prompts)
    ranked = sorted(
        earlier[:replay_window],
        key=lambda example: hash_fraction("replay", current.batch_id, example.feedback_id),
    )
    may_replay = (example for example in ranked if example.messages not in kept_back)
    new = [example for example in current.training if example.messages not in kept_back]
    room = max(0, training_set - len(new))
    replayed = list(islice(may_replay, min(replay, room)))
    learned = {(example.messages, example.answer) for example in (*new, *replayed)}
    compared = (
        BatchExamples(current.batch_id, (), ()) if current.batch_id in quarantined else current
    )
    return TrainingSet(
        new=[_weighted_sample(example) for example in new],
        replayed=[_weighted_sample(example) for example in replayed],
        held_out=[_sample(example) for example in held_out],
        withdrawn=len(whole.training) - len(current.training),
        mean_reward=sum(example.reward for example in new) / len(new) if new else None,
        pairs=[
            PreferencePair(
                messages=example.messages, answer=example.answer, rejected=example.rejected
            )
            for example in compared.preference
            if example.rejected is not None
            and example.messages not in kept_back
            and (example.messages, example.rejected) not in learned
        ],
        negatives=[
            _sample(example)
            for example in compared.negative
            if example.messages not in kept_back
            and (example.messages, example.answer) not in learned
        ],
        liked=[_sample(example) for example in new if example.feedback_type != "correction"],
    )


def read_batches(store: ObjectStore, newest: Artefact) -> Iterator[BatchExamples]:
    """The batch of a manifest and those before it, read one by one.

    An earlier snapshot that is no longer there ends the history: old snapshots may be deleted.
    Raises Missing when the newest is not there, Corrupt when any was altered, Unusable when one
    cannot be understood.
    """
    artefact: Artefact | None = newest
    while artefact is not None:
        try:
            manifest = _manifest(store, artefact)
            kinds: tuple[ExampleKind, ...] = ("training", "held_out", "preference", "negative")
            wanted = kinds if artefact is newest else kinds[:2]
            batch = BatchExamples(
                manifest.batch_id, *(_examples(store, manifest, kind) for kind in wanted)
            )
        except ObjectNotFound:
            if artefact is newest:
                raise
            return
        yield batch
        artefact = manifest.previous


def _manifest(store: ObjectStore, artefact: Artefact) -> BatchManifest:
    try:
        return read_manifest(store, artefact)
    except Undecodable as error:
        raise InvalidArtefact(str(error)) from error


def _examples(store: ObjectStore, manifest: BatchManifest, kind: ExampleKind) -> list[Example]:
    try:
        return read_examples(store, manifest, kind)
    except ValueError as error:
        raise InvalidArtefact(
            f"batch {manifest.batch_id}: {kind} examples cannot be understood: {error}"
        ) from error


def _sample(example: Example) -> Sample:
    return Sample(messages=example.messages, answer=example.answer)


def _weighted_sample(example: Example) -> Sample:
    return Sample(
        messages=example.messages, answer=example.answer, weight=max(MIN_WEIGHT, example.quality)
    )
