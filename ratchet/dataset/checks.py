"""What has to hold of a batch, and what is to be done where it does not: functions of manifests and
examples.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from shared.events import BatchReady
from shared.identity import batch_identity, prompt_identity
from shared.storage.composition import composition_of
from shared.storage.snapshots import KINDS, MEMBER_KINDS, Example, Kind, Manifest, offsets_of

Examples = Mapping[Kind, Sequence[Example]]

WRITTEN_SO = (
    "its digests hold, so it was written like this: keep the objects, and report it as a fault "
    "of Ratchet"
)
_ALTERED = (
    "it was not written by Ratchet: restore it from a copy of the object store, and find out who "
    "writes there"
)
_BOTH_SIDES = (
    "if the share held out was changed, this is why: runs leave such prompts out of training, "
    "but versions made before have seen them"
)


@dataclass(frozen=True)
class Fault:
    """Something wrong with a batch, `model#shard/number`, and what to do about it."""

    batch: str
    what: str
    advice: str


def name_of(manifest: Manifest) -> str:
    return f"{manifest.model}#{manifest.shard}/{manifest.number}"


def faults_of(manifest: Manifest, examples: Examples) -> list[Fault]:
    """What is wrong with one batch in itself. Kinds whose files cannot be read are absent from
    `examples`.
    """
    wrong = [
        *_identity(manifest),
        *_counts(manifest, examples),
        *_ids(manifest, examples),
        *_positions(manifest),
    ]
    return [Fault(name_of(manifest), what, advice) for what, advice in wrong]


def link_faults(manifest: Manifest, previous: Manifest) -> list[Fault]:
    """What is wrong between a batch and the one that its manifest names as the one before."""
    wrong = []
    if (previous.model, previous.shard) != (manifest.model, manifest.shard):
        wrong.append(f"the batch before it is of another model or shard: {name_of(previous)}")
    elif previous.number != manifest.number - 1:
        wrong.append(f"the batch before it is {name_of(previous)}: numbers are not consecutive")
    return [Fault(name_of(manifest), what, WRITTEN_SO) for what in wrong]


def announcement_faults(manifest: Manifest, batch: BatchReady) -> list[Fault]:
    """What the announcement of a batch says otherwise than its manifest."""
    fields = ("batch_id", "model", "model_digest", "shard", "number", "lane", "counts", "offsets")
    wrong = [name for name in fields if getattr(manifest, name) != getattr(batch, name)]
    return [
        Fault(
            name_of(manifest),
            f"its announcement has another {name.replace('_', ' ')} than its manifest",
            _ALTERED,
        )
        for name in wrong
    ]


@dataclass
class Across:
    """What must not happen twice among batches: an event in two of them, a prompt both in training
    and in held out. Each field says in which of the batches given so far something was met first.
    """

    members: dict[str, str] = field(default_factory=dict)
    trained: dict[str, str] = field(default_factory=dict)
    held_out: dict[str, str] = field(default_factory=dict)

    def faults_with(self, manifest: Manifest, examples: Examples) -> list[Fault]:
        """What is wrong between this batch and those that were given before, or among its own
        prompts.
        """
        name = name_of(manifest)
        faults = []
        if twice := [
            feedback_id for feedback_id in manifest.feedback_ids if feedback_id in self.members
        ]:
            faults.append(
                Fault(
                    name,
                    f"{_some(twice)} also stand in {self.members[twice[0]]}: an event is in "
                    "one batch",
                    WRITTEN_SO,
                )
            )
        trained = {
            prompt_identity(example.messages): example.feedback_id
            for example in examples.get("training", ())
        }
        held_out = {
            prompt_identity(example.messages): example.feedback_id
            for example in examples.get("held_out", ())
        }
        for met, names in (
            (self.members, manifest.feedback_ids),
            (self.trained, trained),
            (self.held_out, held_out),
        ):
            for key in names:
                met.setdefault(key, name)
        if both := [
            prompt
            for prompt in trained | held_out
            if prompt in self.trained and prompt in self.held_out
        ]:
            ids = _some([(trained | held_out)[prompt] for prompt in both])
            where = f"trained on in {self.trained[both[0]]}, held out in {self.held_out[both[0]]}"
            faults.append(
                Fault(
                    name,
                    f"the prompts of {ids} stand both in training and in held out: {where}",
                    _BOTH_SIDES,
                )
            )
        return faults


def _identity(manifest: Manifest) -> Iterable[tuple[str, str]]:
    expected = batch_identity(manifest.model, manifest.shard, manifest.number)
    if manifest.batch_id != expected:
        yield f"its id is {manifest.batch_id}, that of its place is {expected}", _ALTERED
    if (manifest.previous is None) != (manifest.number == 0):
        yield (
            f"it is batch {manifest.number} and names "
            f"{'no' if manifest.previous is None else 'a'} batch before it",
            WRITTEN_SO,
        )


def _counts(manifest: Manifest, examples: Examples) -> Iterable[tuple[str, str]]:
    for kind in KINDS:
        files = [file for file in manifest.files if file.kind == kind]
        said, announced = sum(file.examples for file in files), getattr(manifest.counts, kind)
        if not files:
            yield f"it has no file of {kind} examples", WRITTEN_SO
        if kind in examples and not len(examples[kind]) == said == announced:
            yield (
                f"{len(examples[kind])} {kind} examples stand in its files, which are said "
                f"to hold {said}, of {announced}",
                WRITTEN_SO,
            )
        if (
            kind in examples
            and kind in manifest.made_of
            and composition_of(examples[kind]) != manifest.made_of[kind]
        ):
            yield f"its {kind} examples are not made of what the manifest says", WRITTEN_SO


def _ids(manifest: Manifest, examples: Examples) -> Iterable[tuple[str, str]]:
    if twice := [
        feedback_id for feedback_id, count in Counter(manifest.feedback_ids).items() if count > 1
    ]:
        yield f"{_some(twice)} stand more than once among its members", WRITTEN_SO
    if all(kind in examples for kind in MEMBER_KINDS):
        found = Counter(example.feedback_id for kind in MEMBER_KINDS for example in examples[kind])
        if strangers := sorted((found - Counter(manifest.feedback_ids)).keys()):
            yield (
                f"{_some(strangers)} stand in its files and not, or not as often, among its "
                "members",
                WRITTEN_SO,
            )
        if absent := sorted((Counter(manifest.feedback_ids) - found).keys()):
            yield f"{_some(absent)} are members without an example", WRITTEN_SO
    if "training" in examples and "preference" in examples:
        trained = {example.feedback_id for example in examples["training"]}
        if strangers := [
            example.feedback_id
            for example in examples["preference"]
            if example.feedback_id not in trained
        ]:
            yield f"{_some(strangers)} are preferences without a training example", WRITTEN_SO


def _positions(manifest: Manifest) -> Iterable[tuple[str, str]]:
    if not manifest.positions:
        return
    if len(manifest.positions) != len(manifest.feedback_ids):
        yield (
            f"it has {len(manifest.feedback_ids)} members and {len(manifest.positions)} "
            "positions in the log",
            WRITTEN_SO,
        )
    if len(set(manifest.positions)) != len(manifest.positions):
        yield "two of its members stand at one position in the log", WRITTEN_SO
    if offsets_of(manifest.positions) != manifest.offsets:
        yield "the offsets that it covers are not those of its members", WRITTEN_SO


def _some(feedback_ids: Sequence[str]) -> str:
    shown = ", ".join(feedback_ids[:3])
    return f"{shown} and {len(feedback_ids) - 3} more" if len(feedback_ids) > 3 else shown
