"""Withdrawals, batches, runs and their outcomes.

dataset ──▶ dataset.withdrawals ──▶ trainer, registry
dataset ──▶ training.batches ──▶ trainer ──▶ training.progress, training.checkpoints, training.rollbacks ──▶ registry
"""

from typing import Annotated, Literal

from pydantic import Field, FiniteFloat

from shared.events.base import Artefact, Count, Digest, Event, Id, Name, Position, Share, Value
from shared.events.feedback import Message
from shared.training_config import Configuration, Lane, Lineage


class OffsetRange(Value):
    """The part of a log that something was made of; both ends are in it."""

    topic: str
    partition: Count
    first: Count
    last: Count


class BatchCounts(Value):
    """How many examples of each kind are in a batch's snapshot."""

    training: Count
    preference: Count
    negative: Count
    held_out: Count


class WithdrawnBatch(Value):
    """The members of a batch that were withdrawn: of every kind, so also those that candidates are judged by."""

    batch_id: Id
    number: Count
    feedback_ids: Annotated[tuple[Id, ...], Field(min_length=1)]


class ExamplesWithdrawn(Event):
    """What became of a `WithdrawalRequested`: how many examples waited and wait no more, and which members of batches may not be used
    any more. Whoever keeps account of them adds up what such events say; one that comes again may say more, never less.

    `user` stands for the user without naming them. A long answer comes in several events, `part` of `parts`, counted from 0; `waiting`
    is the same in each. `unread` are objects that could not be read, so that nobody knows what of the user's is in them.
    """

    model: Name
    shard: Count
    user: Id
    forgotten: Id
    received: Position
    reason: str | None = None
    waiting: Count
    batches: tuple[WithdrawnBatch, ...]
    unread: tuple[str, ...] = ()
    part: Count = 0
    parts: Annotated[int, Field(ge=1)] = 1


class BatchReady(Event):
    """A batch is closed. A claim check: where the manifest lies, never the examples."""

    model: Name
    model_digest: Digest
    batch_id: Id
    shard: Count
    number: Count
    lane: Lane
    manifest: Artefact
    counts: BatchCounts
    offsets: tuple[OffsetRange, ...]


Phase = Literal["loading", "training", "evaluating", "deciding"]


class TrainingProgressed(Event):
    """How far a run is. Numbers that a phase does not have are null."""

    model: Name
    run_id: Id
    batch_id: Id
    phase: Phase
    step: Count
    total_steps: Count
    loss: FiniteFloat | None = None
    learning_rate: FiniteFloat | None = None
    gradient_norm: FiniteFloat | None = None
    tokens_per_second: FiniteFloat | None = None
    seconds_left: FiniteFloat | None = None


Objective = Literal["supervised", "dpo", "kto"]


class RunMetrics(Value):
    """What a run cost and how it went. Loss is mean cross-entropy per answer token of the examples, in nats, by their weights; the reward
    is that of the new examples.

    `objectives` are what was learned by; `pairs` and `negatives` are how many the batch gave, whether they sufficed or not.
    """

    training_loss: FiniteFloat
    steps: Count
    epochs: Count
    examples_new: Count
    examples_replayed: Count
    examples_rehearsed: Count = 0
    tokens: Count
    train_seconds: FiniteFloat
    evaluate_seconds: FiniteFloat
    mean_reward: FiniteFloat | None = None
    objectives: tuple[Objective, ...] = ("supervised",)
    pairs: Count = 0
    negatives: Count = 0


class Comparison(Value):
    """Candidate against baseline on one set. Scores are mean log-likelihood per answer token, in nats; `difference` is
    candidate minus baseline with its confidence interval [`lower`, `upper`]. On canaries, scores are the share that passed."""

    name: Literal["held_out", "golden", "retention", "canaries"]
    examples: Count
    baseline: FiniteFloat
    candidate: FiniteFloat
    difference: FiniteFloat
    lower: FiniteFloat
    upper: FiniteFloat
    margin: FiniteFloat


class Measure(Value):
    """Candidate and baseline on one set by what people know models by: `perplexity` (of likelihoods, 1 is certainty), and of greedy answers
    `bleu` and `chrf` (points from 0 to 100), `exact_match` and `json_validity` (shares). One that also decides has the margin that is
    allowed, and the bounds of the mean of its differences, each example by itself."""

    name: Literal["perplexity", "bleu", "chrf", "exact_match", "json_validity"]
    set: Literal["held_out", "golden"]
    examples: Count
    baseline: FiniteFloat
    candidate: FiniteFloat
    margin: FiniteFloat | None = None
    difference: FiniteFloat | None = None
    lower: FiniteFloat | None = None
    upper: FiniteFloat | None = None


Decision = Literal["promote", "reject", "inconclusive"]


class Verdict(Value):
    """What the gate decided, against which version, and the numbers that decided it. `alarm` says why reward hacking is suspected."""

    decision: Decision
    baseline_version: str
    confidence: Share
    reasons: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    measures: tuple[Measure, ...] = ()
    alarm: str | None = None


class ProbeToken(Value):
    """One token of a greedy answer: its text, its log-probability, and by how much it led the runner-up."""

    text: str
    logprob: FiniteFloat
    lead: FiniteFloat


class Probe(Value):
    """A prompt and how the evaluated candidate answers it greedily; what serves the candidate must answer alike."""

    messages: tuple[Message, ...]
    answer: tuple[ProbeToken, ...]


class CheckpointSaved(Event):
    """A run ended with a candidate that the gate promotes. `evaluation` counts from 1: the same candidate may be evaluated
    again when the champion has moved meanwhile. Examples that were withdrawn up to `withdrawn_through`, a place in
    `dataset.withdrawals`, had no part in the run. Training began with `parent_adapter`, or with none when the `lineage` is fresh or the
    parent is the base itself."""

    model: Name
    model_digest: Digest
    run_id: Id
    batch_id: Id
    lane: Lane
    parent_version: str
    evaluation: Annotated[int, Field(ge=1)]
    adapter: Artefact
    base_digest: Digest
    configuration: Configuration
    metrics: RunMetrics
    verdict: Verdict
    probes: tuple[Probe, ...]
    withdrawn_through: Position | None = None
    lineage: Lineage | None = None
    parent_adapter: Artefact | None = None
    base: str | None = None


class TrainingRolledBack(Event):
    """A run ended without a version: rejected or inconclusive at the gate, or failed. What is served stays. Lineage, parent and base are as
    in `CheckpointSaved`, those that a failed run would have had included."""

    model: Name
    model_digest: Digest
    run_id: Id
    batch_id: Id
    lane: Lane
    parent_version: str
    evaluation: Count
    outcome: Literal["rejected", "inconclusive", "failed"]
    reason: str
    advice: str = ""
    adapter: Artefact | None = None
    configuration: Configuration
    metrics: RunMetrics | None = None
    verdict: Verdict | None = None
    lineage: Lineage | None = None
    parent_adapter: Artefact | None = None
    base: str | None = None
    base_digest: Digest | None = None
