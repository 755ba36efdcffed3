"""Withdrawals, batches, runs and their outcomes.

dataset ──▶ dataset.withdrawals ──▶ trainer, registry dataset ──▶ training.batches ──▶ trainer ──▶
training.progress, training.checkpoints, training.rollbacks ──▶ registry
"""

from typing import Annotated, Literal

from pydantic import Field, FiniteFloat

from shared.events.base import (
    Artefact,
    Count,
    Digest,
    Event,
    FrozenModel,
    Id,
    Name,
    Position,
    Share,
)
from shared.events.feedback import Message
from shared.events.hyperparameters import Configuration, Lane, Lineage


class OffsetRange(FrozenModel):
    """The part of a log that something was made of; both ends are in it."""

    topic: Annotated[str, Field(description="the topic's name")]
    partition: Annotated[Count, Field(description="counted from 0")]
    first: Annotated[Count, Field(description="the first offset that is in it")]
    last: Annotated[Count, Field(description="the last one")]


class BatchCounts(FrozenModel):
    """How many examples of each kind are in a batch's snapshot."""

    training: Annotated[Count, Field(description="examples to learn")]
    preference: Annotated[
        Count, Field(description="training examples again, each with the answer that it rejects")
    ]
    negative: Annotated[
        Count, Field(description="answers that were found bad, without a better one")
    ]
    held_out: Annotated[
        Count, Field(description="examples that candidates are judged by and never learn")
    ]


class WithdrawnBatch(FrozenModel):
    """The members of a batch that were withdrawn: of every kind, so also those that candidates are
    judged by.
    """

    batch_id: Annotated[Id, Field(description="the batch")]
    number: Annotated[Count, Field(description="its number in its shard")]
    feedback_ids: Annotated[
        tuple[Id, ...], Field(min_length=1, description="the members that were withdrawn")
    ]


class ExamplesWithdrawn(Event):
    """What became of a `WithdrawalRequested`: how many examples waited and wait no more, and which
    members of batches may not be used any more. Whoever keeps account of them adds up what such
    events say; one that comes again may say more, never less.

    `user` stands for the user without naming them. A long answer comes in several events, `part` of
    `parts`, counted from 0; `waiting` is the same in each. `unread` are objects that could not be
    read, so that nobody knows what of the user's is in them.
    """

    model: Annotated[Name, Field(description="the model's name")]
    shard: Annotated[Count, Field(description="the shard that answers")]
    user: Annotated[Id, Field(description="stands for the user without naming them")]
    forgotten: Annotated[
        Id, Field(description="the id of the `UserForgotten`, with its source where there was one")
    ]
    received: Annotated[Position, Field(description="where the `UserForgotten` stood")]
    reason: Annotated[str | None, Field(description="as the user's request gives it")] = None
    waiting: Annotated[
        Count, Field(description="how many examples waited for a batch and wait no more")
    ]
    batches: Annotated[
        tuple[WithdrawnBatch, ...],
        Field(description="the members of batches that may not be used any more"),
    ]
    unread: Annotated[
        tuple[str, ...],
        Field(
            description="objects that could not be read, so that nobody knows what of the user's is in "
            "them"
        ),
    ] = ()
    part: Annotated[Count, Field(description="which of the `parts` this is, counted from 0")] = 0
    parts: Annotated[int, Field(ge=1, description="how many events the answer comes in")] = 1


class BatchReady(Event):
    """A batch is closed. A claim check: where the manifest lies, never the examples."""

    model: Annotated[Name, Field(description="the model's name")]
    model_digest: Annotated[
        Digest, Field(description="of the model file that was in force when the batch closed")
    ]
    batch_id: Annotated[Id, Field(description="a function of model, shard and number")]
    shard: Annotated[Count, Field(description="the shard whose batch it is")]
    number: Annotated[Count, Field(description="batches of a shard are counted from 0")]
    lane: Annotated[Lane, Field(description="how it is to be trained")]
    manifest: Annotated[
        Artefact,
        Field(description="the snapshot's manifest, which names the members and the data files"),
    ]
    counts: Annotated[BatchCounts, Field(description="how many examples of each kind there are")]
    offsets: Annotated[
        tuple[OffsetRange, ...],
        Field(description="what of `feedback.scored` the batch was made of"),
    ]


Phase = Literal["loading", "training", "evaluating", "deciding"]


class TrainingProgressed(Event):
    """How far a run is. Numbers that a phase does not have are null."""

    model: Annotated[Name, Field(description="the model's name")]
    run_id: Annotated[Id, Field(description="the run")]
    batch_id: Annotated[Id, Field(description="the batch that it trains")]
    phase: Annotated[Phase, Field(description="what is being done")]
    step: Annotated[Count, Field(description="steps done")]
    total_steps: Annotated[Count, Field(description="steps that there will be")]
    loss: Annotated[
        FiniteFloat | None, Field(description="at this step, in nats per answer token")
    ] = None
    learning_rate: Annotated[FiniteFloat | None, Field(description="at this step")] = None
    gradient_norm: Annotated[
        FiniteFloat | None, Field(description="at this step, before clipping")
    ] = None
    tokens_per_second: Annotated[FiniteFloat | None, Field(description="how fast it is")] = None
    seconds_left: Annotated[
        FiniteFloat | None, Field(description="until the phase ends, as far as can be told")
    ] = None


Objective = Literal["supervised", "dpo", "kto"]


class RunMetrics(FrozenModel):
    """What a run cost and how it went. Loss is mean cross-entropy per answer token of the examples,
    in nats, by their weights; the reward is that of the new examples.

    `objectives` are what was learned by; `pairs` and `negatives` are how many the batch gave,
    whether they sufficed or not.
    """

    training_loss: Annotated[
        FiniteFloat,
        Field(description="mean cross-entropy per answer token in the last epoch, in nats"),
    ]
    steps: Annotated[Count, Field(description="optimiser steps taken")]
    epochs: Annotated[Count, Field(description="passes over the examples")]
    examples_new: Annotated[Count, Field(description="examples of the batch itself")]
    examples_replayed: Annotated[Count, Field(description="examples of earlier batches")]
    examples_rehearsed: Annotated[
        Count, Field(description="answers of the base itself, learned against forgetting")
    ] = 0
    tokens: Annotated[Count, Field(description="tokens that were seen")]
    train_seconds: Annotated[FiniteFloat, Field(description="how long training took")]
    evaluate_seconds: Annotated[FiniteFloat, Field(description="how long evaluation took")]
    mean_reward: Annotated[FiniteFloat | None, Field(description="of the new examples")] = None
    objectives: Annotated[tuple[Objective, ...], Field(description="what was learned by")] = (
        "supervised",
    )
    pairs: Annotated[Count, Field(description="preference pairs that the batch gave")] = 0
    negatives: Annotated[Count, Field(description="unpaired negatives that the batch gave")] = 0


class Comparison(FrozenModel):
    """Candidate against baseline on one set. Scores are mean log-likelihood per answer token, in
    nats; `difference` is candidate minus baseline with its confidence interval [`lower`, `upper`].
    On canaries, scores are the share that passed.
    """

    name: Annotated[
        Literal["held_out", "golden", "retention", "canaries"], Field(description="the set")
    ]
    examples: Annotated[Count, Field(description="how many examples it has")]
    baseline: Annotated[FiniteFloat, Field(description="mean score of what is served")]
    candidate: Annotated[FiniteFloat, Field(description="mean score of the candidate")]
    difference: Annotated[FiniteFloat, Field(description="candidate minus baseline")]
    lower: Annotated[
        FiniteFloat, Field(description="lower end of the difference's confidence interval")
    ]
    upper: Annotated[FiniteFloat, Field(description="its upper end")]
    margin: Annotated[
        FiniteFloat, Field(description="by how much it has to be better, or may be worse")
    ]


class Measure(FrozenModel):
    """Candidate and baseline on one set by what people know models by: `perplexity` (of
    likelihoods, 1 is certainty), and of greedy answers `bleu` and `chrf` (points from 0 to 100),
    `exact_match` and `json_validity` (shares). One that also decides has the margin that is
    allowed, and the bounds of the mean of its differences, each example by itself.
    """

    name: Annotated[
        Literal["perplexity", "bleu", "chrf", "exact_match", "json_validity"],
        Field(description="what is measured"),
    ]
    set: Annotated[Literal["held_out", "golden"], Field(description="on which set")]
    examples: Annotated[Count, Field(description="how many examples it has")]
    baseline: Annotated[FiniteFloat, Field(description="of what is served")]
    candidate: Annotated[FiniteFloat, Field(description="of the candidate")]
    margin: Annotated[
        FiniteFloat | None,
        Field(description="how much worse it may be; only where the measure decides"),
    ] = None
    difference: Annotated[
        FiniteFloat | None, Field(description="mean of the differences, example by example")
    ] = None
    lower: Annotated[
        FiniteFloat | None, Field(description="lower end of its confidence interval")
    ] = None
    upper: Annotated[FiniteFloat | None, Field(description="its upper end")] = None


Decision = Literal["promote", "reject", "inconclusive"]


class Verdict(FrozenModel):
    """What the gate decided, against which version, and the numbers that decided it. `alarm` says
    why reward hacking is suspected.
    """

    decision: Annotated[Decision, Field(description="what the gate decided")]
    baseline_version: Annotated[str, Field(description="the version that was the champion then")]
    confidence: Annotated[Share, Field(description="of the intervals that decided")]
    reasons: Annotated[tuple[str, ...], Field(description="in words")]
    comparisons: Annotated[tuple[Comparison, ...], Field(description="the numbers that decided")]
    measures: Annotated[
        tuple[Measure, ...], Field(description="further measures, some of which may decide as well")
    ] = ()
    alarm: Annotated[str | None, Field(description="why reward hacking is suspected")] = None


class ProbeToken(FrozenModel):
    """One token of a greedy answer: its text, its log-probability, and by how much it led the
    runner-up.
    """

    text: Annotated[str, Field(description="the token")]
    logprob: Annotated[FiniteFloat, Field(description="its log-probability, in nats")]
    lead: Annotated[FiniteFloat, Field(description="by how much it led the runner-up, in nats")]


class Probe(FrozenModel):
    """A prompt and how the evaluated candidate answers it greedily; what serves the candidate must
    answer alike.
    """

    messages: Annotated[tuple[Message, ...], Field(description="the prompt")]
    answer: Annotated[
        tuple[ProbeToken, ...], Field(description="the first tokens of the greedy answer")
    ]


class CheckpointSaved(Event):
    """A run ended with a candidate that the gate promotes. `evaluation` counts from 1: the same
    candidate may be evaluated again when the champion has moved meanwhile. Examples that were
    withdrawn up to `withdrawn_through`, a place in `dataset.withdrawals`, had no part in the run.
    Training began with `parent_adapter`, or with none when the `lineage` is fresh or the parent is
    the base itself.
    """

    model: Annotated[Name, Field(description="the model's name")]
    model_digest: Annotated[Digest, Field(description="of the model file that was in force")]
    run_id: Annotated[Id, Field(description="the run")]
    batch_id: Annotated[Id, Field(description="the batch that it trained")]
    lane: Annotated[Lane, Field(description="how it was trained")]
    parent_version: Annotated[str, Field(description="the champion that training began with")]
    evaluation: Annotated[
        int,
        Field(
            ge=1,
            description="counts from 1: a candidate may be evaluated again when the champion has moved",
        ),
    ]
    adapter: Annotated[Artefact, Field(description="the candidate")]
    base_digest: Annotated[Digest, Field(description="of the base that the adapter belongs to")]
    configuration: Annotated[Configuration, Field(description="hyperparameters of the run")]
    metrics: Annotated[RunMetrics, Field(description="what the run cost and how it went")]
    verdict: Annotated[Verdict, Field(description="what the gate decided, and why")]
    probes: Annotated[
        tuple[Probe, ...], Field(description="prompts by which a deployment is verified")
    ]
    withdrawn_through: Annotated[
        Position | None,
        Field(
            description="examples withdrawn up to this place in `dataset.withdrawals` had no part in the "
            "run"
        ),
    ] = None
    lineage: Annotated[
        Lineage | None,
        Field(
            description="whether training went on from the parent's adapter or began with the base"
        ),
    ] = None
    parent_adapter: Annotated[
        Artefact | None, Field(description="the adapter that training began with, if it did")
    ] = None
    base: Annotated[str | None, Field(description="the name of the base")] = None


class TrainingRolledBack(Event):
    """A run ended without a version: rejected or inconclusive at the gate, or failed. What is
    served stays. Lineage, parent and base are as in `CheckpointSaved`, those that a failed run
    would have had included.
    """

    model: Annotated[Name, Field(description="the model's name")]
    model_digest: Annotated[Digest, Field(description="of the model file that was in force")]
    run_id: Annotated[Id, Field(description="the run")]
    batch_id: Annotated[Id, Field(description="the batch that it trained")]
    lane: Annotated[Lane, Field(description="how it was trained")]
    parent_version: Annotated[str, Field(description="the champion that training began with")]
    evaluation: Annotated[
        Count, Field(description="as in `CheckpointSaved`; 0 when the run was never evaluated")
    ]
    outcome: Annotated[
        Literal["rejected", "inconclusive", "failed"], Field(description="why there is no version")
    ]
    reason: Annotated[str, Field(description="in words")]
    advice: Annotated[str, Field(description="what to do about it")] = ""
    adapter: Annotated[Artefact | None, Field(description="the candidate, where there is one")] = (
        None
    )
    configuration: Annotated[Configuration, Field(description="hyperparameters of the run")]
    metrics: Annotated[
        RunMetrics | None, Field(description="what the run cost and how it went")
    ] = None
    verdict: Annotated[Verdict | None, Field(description="what the gate decided, and why")] = None
    lineage: Annotated[
        Lineage | None,
        Field(
            description="whether training went on from the parent's adapter or began with the base"
        ),
    ] = None
    parent_adapter: Annotated[
        Artefact | None, Field(description="the adapter that training began with, if it did")
    ] = None
    base: Annotated[str | None, Field(description="the name of the base")] = None
    base_digest: Annotated[Digest | None, Field(description="of that base")] = None
