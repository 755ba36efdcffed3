"""Checks of a batch, as pure functions of manifests and examples, with advice for each fault."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from shared.events import BatchReady
from shared.identity import batch_identity, prompt_identity
from shared.storage.composition import composition_of
from shared.storage.snapshots import (
    EXAMPLE_KINDS,
    MEMBER_KINDS,
    BatchManifest,
    Example,
    ExampleKind,
    dataset_identity,
    offsets_of,
)

Examples = Mapping[ExampleKind, Sequence[Example]]

REPORT_A_BUG = (
    "its digests match, so it was written like this: keep the objects, and report a bug in Ratchet"
)
RESTORE_ALTERED = (
    "it was not written by Ratchet: restore it from a copy of the object store, and find out "
    "what writes there"
)
HELD_OUT_SHARE_CHANGED = (
    "a change of the held-out share causes this: runs leave such prompts out of training, but "
    "earlier versions were trained on them"
)


@dataclass(frozen=True)
class Fault:
    """A fault of a batch or imported dataset (`batch_name`), with advice."""

    batch: str
    what: str
    advice: str


def batch_name(manifest: BatchManifest) -> str:
    """Name a batch `model#shard/number`, an imported dataset `model@ID`."""
    if manifest.imported is not None:
        return f"{manifest.model}@{manifest.batch_id[:12]}"
    return f"{manifest.model}#{manifest.shard}/{manifest.number}"


def batch_faults(manifest: BatchManifest, examples: Examples) -> list[Fault]:
    """Return the faults within one batch. `examples` lacks the kinds with unreadable files."""
    wrong = [
        *_identity(manifest),
        *_counts(manifest, examples),
        *_ids(manifest, examples),
        *_positions(manifest),
    ]
    return [Fault(batch_name(manifest), what, advice) for what, advice in wrong]


def link_faults(manifest: BatchManifest, previous: BatchManifest) -> list[Fault]:
    """Return the faults of the link from a batch to the one before."""
    wrong = []
    if manifest.imported is not None:
        if previous.model != manifest.model:
            wrong.append(f"the batch before it is of another model: {batch_name(previous)}")
    elif (previous.model, previous.shard) != (manifest.model, manifest.shard):
        wrong.append(f"the batch before it is of another model or shard: {batch_name(previous)}")
    elif previous.number != manifest.number - 1:
        wrong.append(f"the batch before it is {batch_name(previous)}: numbers are not consecutive")
    return [Fault(batch_name(manifest), what, REPORT_A_BUG) for what in wrong]


def announcement_faults(manifest: BatchManifest, batch: BatchReady) -> list[Fault]:
    """Return the differences between the announcement of a batch and its manifest."""
    fields = (
        "batch_id",
        "model",
        "model_digest",
        "shard",
        "number",
        "lane",
        "counts",
        "offsets",
        "hyperparameters",
    )
    wrong = [name for name in fields if getattr(manifest, name) != getattr(batch, name)]
    return [
        Fault(
            batch_name(manifest),
            f"its announcement has another {name.replace('_', ' ')} than its manifest",
            RESTORE_ALTERED,
        )
        for name in wrong
    ]


@dataclass
class CrossBatchChecks:
    """Checks across batches: no event is in two of them, and no prompt is both in training and held
    out. Each field maps an event or prompt to the first batch that contained it.
    """

    members: dict[str, str] = field(default_factory=dict)
    trained: dict[str, str] = field(default_factory=dict)
    held_out: dict[str, str] = field(default_factory=dict)

    def faults_of(self, manifest: BatchManifest, examples: Examples) -> list[Fault]:
        """Return the faults between this batch and the earlier ones, or among its own prompts."""
        name = batch_name(manifest)
        faults = []
        if twice := [
            feedback_id for feedback_id in manifest.feedback_ids if feedback_id in self.members
        ]:
            faults.append(
                Fault(
                    name,
                    f"{_shortened(twice)} are also in {self.members[twice[0]]}: an event belongs "
                    "to one batch",
                    REPORT_A_BUG,
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
            ids = _shortened([(trained | held_out)[prompt] for prompt in both])
            where = f"trained on in {self.trained[both[0]]}, held out in {self.held_out[both[0]]}"
            faults.append(
                Fault(
                    name,
                    f"the prompts of {ids} are both in training and held out: {where}",
                    HELD_OUT_SHARE_CHANGED,
                )
            )
        return faults


def _identity(manifest: BatchManifest) -> Iterable[tuple[str, str]]:
    expected = (
        batch_identity(manifest.model, manifest.shard, manifest.number)
        if manifest.imported is None
        else dataset_identity(manifest)
    )
    if manifest.batch_id != expected:
        yield f"its ID is {manifest.batch_id}, expected {expected}", RESTORE_ALTERED
    if manifest.imported is None and (manifest.previous is None) != (manifest.number == 0):
        yield (
            f"it is batch {manifest.number} and names "
            f"{'no' if manifest.previous is None else 'a'} batch before it",
            REPORT_A_BUG,
        )


def _counts(manifest: BatchManifest, examples: Examples) -> Iterable[tuple[str, str]]:
    for kind in EXAMPLE_KINDS:
        files = [file for file in manifest.files if file.kind == kind]
        declared, announced = sum(file.examples for file in files), getattr(manifest.counts, kind)
        if not files:
            yield f"it has no file of {kind} examples", REPORT_A_BUG
        if kind in examples and not len(examples[kind]) == declared == announced:
            yield (
                f"its files hold {len(examples[kind])} {kind} examples; the manifest declares "
                f"{declared} by file and {announced} in total",
                REPORT_A_BUG,
            )
        if (
            kind in examples
            and kind in manifest.made_of
            and composition_of(examples[kind]) != manifest.made_of[kind]
        ):
            yield f"the composition of its {kind} examples differs from the manifest", REPORT_A_BUG


def _ids(manifest: BatchManifest, examples: Examples) -> Iterable[tuple[str, str]]:
    if twice := [
        feedback_id for feedback_id, count in Counter(manifest.feedback_ids).items() if count > 1
    ]:
        yield f"{_shortened(twice)} are members more than once", REPORT_A_BUG
    if all(kind in examples for kind in MEMBER_KINDS):
        counts = Counter(example.feedback_id for kind in MEMBER_KINDS for example in examples[kind])
        if strangers := sorted((counts - Counter(manifest.feedback_ids)).keys()):
            yield (
                f"{_shortened(strangers)} are in its files but not, or less often, among its "
                "members",
                REPORT_A_BUG,
            )
        if absent := sorted((Counter(manifest.feedback_ids) - counts).keys()):
            yield f"{_shortened(absent)} are members without an example", REPORT_A_BUG
    if "training" in examples and "preference" in examples:
        trained = {example.feedback_id for example in examples["training"]}
        if strangers := [
            example.feedback_id
            for example in examples["preference"]
            if example.feedback_id not in trained
        ]:
            yield (
                f"{_shortened(strangers)} are preferences without a training example",
                REPORT_A_BUG,
            )


def _positions(manifest: BatchManifest) -> Iterable[tuple[str, str]]:
    if not manifest.positions:
        return
    if len(manifest.positions) != len(manifest.feedback_ids):
        yield (
            f"it has {len(manifest.feedback_ids)} members and {len(manifest.positions)} "
            "positions in the log",
            REPORT_A_BUG,
        )
    if len(set(manifest.positions)) != len(manifest.positions):
        yield "two of its members have the same position in the log", REPORT_A_BUG
    if offsets_of(manifest.positions) != manifest.offsets:
        yield "its offsets are not those of its members", REPORT_A_BUG


def _shortened(feedback_ids: Sequence[str]) -> str:
    shown = ", ".join(feedback_ids[:3])
    return f"{shown} and {len(feedback_ids) - 3} more" if len(feedback_ids) > 3 else shown
