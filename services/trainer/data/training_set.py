"""Selection of a run's training and evaluation examples.

The result is a pure function of the manifests of a model's shard, newest first, of the batch's id,
and of the batches quarantined and the examples withdrawn when the run starts.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Annotated, TypeVar

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
"""Minimum weight of an example, however low its quality: curation has accepted it."""


class Sample(FrozenModel):
    """A prompt and its reference answer. `weight` is its weight in training."""

    messages: tuple[Message, ...]
    answer: str
    weight: Annotated[float, Field(gt=0, le=1)] = 1.0


class PreferencePair(FrozenModel):
    """A prompt with the preferred answer and the answer that it replaces."""

    messages: tuple[Message, ...]
    answer: str
    rejected: str


S = TypeVar("S", Sample, PreferencePair)


@dataclass(frozen=True)
class BatchExamples:
    """A batch's examples, from its manifest. Preferences and negatives are read only for the batch
    to train on. `is_imported` marks a dataset from a file.
    """

    batch_id: Id
    training: Sequence[Example]
    held_out: Sequence[Example]
    preference: Sequence[Example] = ()
    negative: Sequence[Example] = ()
    is_imported: bool = field(default=False, kw_only=True)

    def without(self, feedback_ids: Collection[Id]) -> "BatchExamples":
        """Return the batch without some of its examples."""
        kinds = (self.training, self.held_out, self.preference, self.negative)
        return BatchExamples(
            self.batch_id,
            *(
                [example for example in kind if example.feedback_id not in feedback_ids]
                for kind in kinds
            ),
            is_imported=self.is_imported,
        )


@dataclass(frozen=True)
class TrainingSet:
    """The examples of one run. No prompt is in both the training and the evaluation split.

    `withdrawn` is the number of examples that the batch to train on has lost by withdrawal;
    `mean_reward` is that of the new examples, None for those of a file, which have no rating.
    `pairs` are corrections with the answers they
    replaced, `negatives` are disliked answers, `liked` are new examples without a correction; all
    of them come from the batch to train on. `skipped` counts examples that were left out because
    they cannot be rendered; pairs and liked ones are new examples again.
    """

    new: Sequence[Sample]
    replayed: Sequence[Sample]
    held_out: Sequence[Sample]
    withdrawn: int = 0
    mean_reward: float | None = None
    pairs: Sequence[PreferencePair] = ()
    negatives: Sequence[Sample] = ()
    liked: Sequence[Sample] = ()
    skipped: int = 0

    @property
    def prompts(self) -> Iterator[tuple[Message, ...]]:
        """The prompts of all examples."""
        kinds = (self.new, self.replayed, self.held_out, self.pairs, self.negatives)
        return (example.messages for kind in kinds for example in kind)

    def without(self, prompts: Collection[tuple[Message, ...]]) -> "TrainingSet":
        """Return the set without the examples of some prompts, which count as skipped."""
        skipped = sum(
            example.messages in prompts
            for kind in (self.new, self.replayed, self.held_out, self.negatives)
            for example in kind
        )
        return replace(
            self,
            new=_without(self.new, prompts),
            replayed=_without(self.replayed, prompts),
            held_out=_without(self.held_out, prompts),
            pairs=_without(self.pairs, prompts),
            negatives=_without(self.negatives, prompts),
            liked=_without(self.liked, prompts),
            skipped=self.skipped + skipped,
        )


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
    """Select a run's examples from `batches`, newest first; the first one is the batch to train on.

    Replay is drawn from the newest `replay_window` examples before it: the `replay` ones whose ids
    hash lowest together with the batch's id, or fewer, so that new and replayed examples together
    are at most `training_set`. New examples are never dropped for that limit: a version is defined
    by the batch it names. Held-out examples are the newest `held_out_newest`; a large imported
    dataset takes at most half of these places while there is held-out feedback for the others.

    Quarantined batches contribute neither replay nor held-out examples, and no pairs or negatives.
    A prompt that is held out or golden is never trained on, under any objective. Examples whose
    feedback was `withdrawn` are ignored completely. An answer that is learned is never a negative
    or rejected answer for the same prompt. Reads `batches` only as far as both windows reach.
    """
    stream = iter(batches)
    current_whole = next(stream)
    current = current_whole.without(withdrawn)
    earlier: list[Example] = []
    own = [] if current.batch_id in quarantined else list(reversed(current.held_out))
    places = held_out_newest // 2 if current.is_imported else len(own)
    held_out, more = own[:places], own[places:]
    while len(earlier) < (replay_window if replay else 0) or len(held_out) < held_out_newest:
        batch = next(stream, None)
        if batch is None:
            break
        if batch.batch_id not in quarantined:
            batch = batch.without(withdrawn)
            earlier += reversed(batch.training)
            held_out += reversed(batch.held_out)
    held_out = (held_out + more)[:held_out_newest]
    evaluation_prompts = {example.messages for example in held_out} | set(golden_prompts)
    ranked = sorted(
        earlier[:replay_window],
        key=lambda example: hash_fraction("replay", current.batch_id, example.feedback_id),
    )
    replayable = (example for example in ranked if example.messages not in evaluation_prompts)
    new = [example for example in current.training if example.messages not in evaluation_prompts]
    replay_limit = max(0, training_set - len(new))
    replayed = list(islice(replayable, min(replay, replay_limit)))
    learned = {(example.messages, example.answer) for example in (*new, *replayed)}
    preference_source = (
        BatchExamples(current.batch_id, (), ()) if current.batch_id in quarantined else current
    )
    return TrainingSet(
        new=[_weighted_sample(example) for example in new],
        replayed=[_weighted_sample(example) for example in replayed],
        held_out=[_sample(example) for example in held_out],
        withdrawn=len(current_whole.training) - len(current.training),
        mean_reward=_mean_reward(new) if new and not current.is_imported else None,
        pairs=[
            PreferencePair(
                messages=example.messages, answer=example.answer, rejected=example.rejected
            )
            for example in preference_source.preference
            if example.rejected is not None
            and example.messages not in evaluation_prompts
            and (example.messages, example.rejected) not in learned
        ],
        negatives=[
            _sample(example)
            for example in preference_source.negative
            if example.messages not in evaluation_prompts
            and (example.messages, example.answer) not in learned
        ],
        liked=[_sample(example) for example in new if example.feedback_type != "correction"],
    )


def _without(examples: Sequence[S], prompts: Collection[tuple[Message, ...]]) -> Sequence[S]:
    return [example for example in examples if example.messages not in prompts]


def read_batches(store: ObjectStore, newest: Artefact) -> Iterator[BatchExamples]:
    """Yield the batch of a manifest and its predecessors, read lazily.

    A missing earlier snapshot ends the history: old snapshots may be deleted. Raises ObjectNotFound
    if the newest is missing, DigestMismatch if any was altered, InvalidArtefact if one cannot be
    parsed.
    """
    artefact: Artefact | None = newest
    while artefact is not None:
        try:
            manifest = _manifest(store, artefact)
            kinds: tuple[ExampleKind, ...] = ("training", "held_out", "preference", "negative")
            kinds_to_read = kinds if artefact is newest else kinds[:2]
            batch = BatchExamples(
                manifest.batch_id,
                *(_examples(store, manifest, kind) for kind in kinds_to_read),
                is_imported=manifest.imported is not None,
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


def _mean_reward(examples: Sequence[Example]) -> float:
    return sum(example.reward for example in examples) / len(examples)


def _sample(example: Example) -> Sample:
    return Sample(messages=example.messages, answer=example.answer)


def _weighted_sample(example: Example) -> Sample:
    return Sample(
        messages=example.messages, answer=example.answer, weight=max(MIN_WEIGHT, example.quality)
    )
