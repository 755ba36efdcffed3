"""Events of withdrawals, batches, runs and their outcomes.

dataset ──▶ dataset.withdrawals ──▶ trainer, registry
dataset ──▶ training.batches ──▶ trainer
trainer ──▶ training.progress, training.checkpoints, training.rollbacks ──▶ registry
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
from shared.events.hyperparameters import Configuration, HyperparameterValue, Lane, Lineage


class OffsetRange(FrozenModel):
    """An inclusive range of offsets in a partition."""

    topic: Annotated[str, Field(description="name of the topic")]
    partition: Annotated[Count, Field(description="partition number, from 0")]
    first: Annotated[Count, Field(description="first offset, inclusive")]
    last: Annotated[Count, Field(description="last offset, inclusive")]


class BatchCounts(FrozenModel):
    """Number of examples of each kind in a batch's snapshot."""

    training: Annotated[Count, Field(description="training examples")]
    preference: Annotated[
        Count, Field(description="preference pairs: training examples with a rejected answer")
    ]
    negative: Annotated[Count, Field(description="bad answers without a correction")]
    held_out: Annotated[Count, Field(description="examples for evaluation only, never trained on")]


class WithdrawnBatch(FrozenModel):
    """The withdrawn members of a batch, of every kind, including held-out examples."""

    batch_id: Annotated[Id, Field(description="id of the batch")]
    number: Annotated[Count, Field(description="number of the batch in its shard")]
    feedback_ids: Annotated[tuple[Id, ...], Field(min_length=1, description="withdrawn members")]


class ExamplesWithdrawn(Event):
    """The result of a `WithdrawalRequested`: the number of pending examples that were withdrawn,
    and the members of batches that may no longer be used. Consumers accumulate these events; a
    repeated event may list more members, never fewer.

    `user` is a pseudonym of the user. A long result is split into several events, `part` of
    `parts`, counted from 0; `waiting` is the same in each. `unread` are objects that could not be
    read, so that the user's data in them is unknown.
    """

    model: Annotated[Name, Field(description="name of the model")]
    shard: Annotated[Count, Field(description="shard that the result is for")]
    user: Annotated[Id, Field(description="pseudonym of the user")]
    forgotten: Annotated[
        Id, Field(description="id of the `UserForgotten`, prefixed with its source if it has one")
    ]
    received: Annotated[Position, Field(description="position of the `UserForgotten`")]
    reason: Annotated[str | None, Field(description="reason given in the request")] = None
    waiting: Annotated[Count, Field(description="number of pending examples that were withdrawn")]
    batches: Annotated[
        tuple[WithdrawnBatch, ...],
        Field(description="members of batches that may no longer be used"),
    ]
    unread: Annotated[
        tuple[str, ...],
        Field(
            description="objects that could not be read, so that the user's data in them is unknown"
        ),
    ] = ()
    part: Annotated[Count, Field(description="index of this event among the `parts`, from 0")] = 0
    parts: Annotated[
        int, Field(ge=1, description="number of events that the result is split into")
    ] = 1


class BatchReady(Event):
    """A batch is closed. A claim check: it refers to the manifest and contains no examples."""

    model: Annotated[Name, Field(description="name of the model")]
    model_digest: Annotated[
        Digest, Field(description="digest of the model file in use when the batch closed")
    ]
    batch_id: Annotated[Id, Field(description="a function of model, shard and number")]
    shard: Annotated[Count, Field(description="shard of the batch")]
    number: Annotated[Count, Field(description="number of the batch in its shard, from 0")]
    lane: Annotated[Lane, Field(description="training lane")]
    manifest: Annotated[
        Artefact,
        Field(description="manifest of the snapshot, which lists members and data files"),
    ]
    counts: Annotated[BatchCounts, Field(description="number of examples of each kind")]
    offsets: Annotated[
        tuple[OffsetRange, ...],
        Field(description="offset ranges of `feedback.scored` that the batch was made from"),
    ]
    hyperparameters: Annotated[
        dict[str, HyperparameterValue] | None,
        Field(description="hyperparameters of this batch's run that replace those of its lane"),
    ] = None


Phase = Literal["loading", "training", "evaluating", "deciding"]


class TrainingProgressed(Event):
    """Progress of a run. Numbers that do not apply to a phase are null."""

    model: Annotated[Name, Field(description="name of the model")]
    run_id: Annotated[Id, Field(description="id of the run")]
    batch_id: Annotated[Id, Field(description="batch being trained on")]
    phase: Annotated[Phase, Field(description="current phase")]
    step: Annotated[Count, Field(description="completed steps")]
    total_steps: Annotated[Count, Field(description="total number of steps")]
    loss: Annotated[
        FiniteFloat | None, Field(description="loss of this step, in nats per answer token")
    ] = None
    learning_rate: Annotated[
        FiniteFloat | None, Field(description="learning rate of this step")
    ] = None
    gradient_norm: Annotated[
        FiniteFloat | None, Field(description="gradient norm of this step, before clipping")
    ] = None
    tokens_per_second: Annotated[FiniteFloat | None, Field(description="throughput")] = None
    seconds_left: Annotated[
        FiniteFloat | None, Field(description="estimated seconds until the phase ends")
    ] = None


Objective = Literal["supervised", "dpo", "kto"]


class RunMetrics(FrozenModel):
    """Costs and results of a run. Loss is the weighted mean cross-entropy per answer token of the
    examples, in nats; the reward is that of the new examples.

    `objectives` are the training objectives; `pairs` and `negatives` are the numbers in the batch,
    whether they sufficed for their objective or not.
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
        Count, Field(description="answers of the base model, rehearsed against forgetting")
    ] = 0
    tokens: Annotated[Count, Field(description="tokens trained on")]
    train_seconds: Annotated[FiniteFloat, Field(description="duration of training")]
    evaluate_seconds: Annotated[FiniteFloat, Field(description="duration of evaluation")]
    mean_reward: Annotated[
        FiniteFloat | None, Field(description="mean reward of the new examples")
    ] = None
    objectives: Annotated[tuple[Objective, ...], Field(description="training objectives")] = (
        "supervised",
    )
    pairs: Annotated[Count, Field(description="preference pairs in the batch")] = 0
    negatives: Annotated[Count, Field(description="unpaired negatives in the batch")] = 0
    examples_skipped: Annotated[
        Count, Field(description="examples that the base's chat template refuses")
    ] = 0


class Comparison(FrozenModel):
    """Candidate against baseline on one set. Scores are mean log-likelihood per answer token, in
    nats; `difference` is candidate minus baseline with its confidence interval [`lower`, `upper`].
    On `canaries` (the regression prompts), scores are the share that passed; `retention` is the
    regression set.
    """

    name: Annotated[
        Literal["held_out", "golden", "retention", "canaries"], Field(description="the set")
    ]
    examples: Annotated[Count, Field(description="number of examples in the set")]
    baseline: Annotated[FiniteFloat, Field(description="mean score of the baseline")]
    candidate: Annotated[FiniteFloat, Field(description="mean score of the candidate")]
    difference: Annotated[FiniteFloat, Field(description="candidate minus baseline")]
    lower: Annotated[
        FiniteFloat, Field(description="lower end of the difference's confidence interval")
    ]
    upper: Annotated[FiniteFloat, Field(description="its upper end")]
    margin: Annotated[FiniteFloat, Field(description="required improvement, or tolerated decline")]


class Measure(FrozenModel):
    """Standard measures of candidate and baseline on one set: `perplexity` (of likelihoods, 1 is
    certainty), and of greedy answers `bleu` and `chrf` (points from 0 to 100), `exact_match` and
    `json_validity` (shares). A measure that takes part in the decision has its margin and the
    confidence bounds of its mean difference, paired by example.
    """

    name: Annotated[
        Literal["perplexity", "bleu", "chrf", "exact_match", "json_validity"],
        Field(description="the measure"),
    ]
    set: Annotated[Literal["held_out", "golden"], Field(description="evaluation set")]
    examples: Annotated[Count, Field(description="number of examples in the set")]
    baseline: Annotated[FiniteFloat, Field(description="value for the baseline")]
    candidate: Annotated[FiniteFloat, Field(description="value for the candidate")]
    margin: Annotated[
        FiniteFloat | None,
        Field(description="tolerated decline; only for a measure that takes part in the decision"),
    ] = None
    difference: Annotated[
        FiniteFloat | None, Field(description="mean of the per-example differences")
    ] = None
    lower: Annotated[
        FiniteFloat | None, Field(description="lower end of its confidence interval")
    ] = None
    upper: Annotated[FiniteFloat | None, Field(description="its upper end")] = None


Decision = Literal["promote", "reject", "inconclusive"]


class PromotionBudget(FrozenModel):
    """Error of promotion that an evaluation could spend, and what it lacked for a promotion.
    `golden_decisions` counts the gates of the model that have used this golden set, this one
    included.
    """

    gate: Annotated[int, Field(ge=1, description="number of the gate in the model's life, from 1")]
    level: Annotated[Share, Field(description="error that this evaluation could spend")]
    next_level: Annotated[Share, Field(description="error that the next gate may spend")]
    needed_examples: Annotated[
        Count | None,
        Field(description="further examples that would show the measured gain, if it stays"),
    ] = None
    needed_gain: Annotated[
        FiniteFloat | None,
        Field(description="measured gain that would have sufficed, in nats per answer token"),
    ] = None
    needed_on: Annotated[
        Literal["held_out", "golden"] | None, Field(description="set of the two numbers above")
    ] = None
    golden_digest: Annotated[
        Digest | None, Field(description="digest of the golden examples in use")
    ] = None
    golden_decisions: Annotated[
        Count, Field(description="gates that have used these golden examples")
    ] = 0


class Verdict(FrozenModel):
    """Decision of the gate, the baseline version, and the numbers behind the decision. `alarm` is
    the reason for suspecting reward hacking.

    A candidate that only forgot too much is trained once more at a gentler setting: `attempt` is
    then 2. `quarantined` is null in verdicts of versions that quarantined every rejected batch.
    """

    decision: Annotated[Decision, Field(description="decision of the gate")]
    baseline_version: Annotated[
        str, Field(description="champion that the candidate was compared with")
    ]
    confidence: Annotated[Share, Field(description="confidence level of the intervals")]
    reasons: Annotated[tuple[str, ...], Field(description="reasons in plain text")]
    comparisons: Annotated[
        tuple[Comparison, ...], Field(description="comparisons behind the decision")
    ]
    measures: Annotated[
        tuple[Measure, ...],
        Field(description="further measures, some of which may take part in the decision"),
    ] = ()
    alarm: Annotated[str | None, Field(description="reason for suspecting reward hacking")] = None
    p_value: Annotated[
        Share | None,
        Field(description="smallest error at which the evidence promotes; 1 with an objection"),
    ] = None
    budget: Annotated[
        PromotionBudget | None, Field(description="error of promotion, and what was missing")
    ] = None
    attempt: Annotated[
        int, Field(ge=1, le=2, description="number of the batch's training, from 1")
    ] = 1
    retried_because: Annotated[
        str | None, Field(description="reason for the second attempt, in plain text")
    ] = None
    quarantined: Annotated[
        bool | None,
        Field(description="true if its batch is no longer used for training and evaluation"),
    ] = None

    @property
    def quarantines_batch(self) -> bool:
        """True if the batch is no longer used for training and evaluation."""
        return self.decision == "reject" and self.quarantined is not False


class ProbeToken(FrozenModel):
    """One token of a greedy answer: text, log-probability, and lead over the runner-up."""

    text: Annotated[str, Field(description="text of the token")]
    logprob: Annotated[FiniteFloat, Field(description="its log-probability, in nats")]
    lead: Annotated[
        FiniteFloat,
        Field(description="difference to the log-probability of the runner-up, in nats"),
    ]


class Probe(FrozenModel):
    """A prompt and the greedy answer of the evaluated candidate; a deployment of the candidate must
    give the same answer.
    """

    messages: Annotated[tuple[Message, ...], Field(description="the prompt")]
    answer: Annotated[
        tuple[ProbeToken, ...], Field(description="the first tokens of the greedy answer")
    ]
    prompt_tokens: Annotated[
        tuple[int, ...] | None,
        Field(
            description="token ids of the rendered prompt; null if it was cut or depends on the day"
        ),
    ] = None


class CheckpointSaved(Event):
    """A run ended with a candidate that the gate promotes. `evaluation` counts from 1: a candidate
    is evaluated again when the champion has changed in the meantime. Examples withdrawn up to
    `withdrawn_through`, a position in `dataset.withdrawals`, were excluded from the run. Training
    started from `parent_adapter`, or from none when the `lineage` is fresh or the parent is the
    base itself.
    """

    model: Annotated[Name, Field(description="name of the model")]
    model_digest: Annotated[Digest, Field(description="digest of the model file in use")]
    run_id: Annotated[Id, Field(description="id of the run")]
    batch_id: Annotated[Id, Field(description="batch that was trained on")]
    lane: Annotated[Lane, Field(description="training lane")]
    parent_version: Annotated[str, Field(description="champion when training started")]
    evaluation: Annotated[
        int,
        Field(
            ge=1,
            description="number of the evaluation, from 1: repeated when the champion has changed",
        ),
    ]
    adapter: Annotated[Artefact, Field(description="adapter of the candidate")]
    base_digest: Annotated[Digest, Field(description="digest of the adapter's base model")]
    configuration: Annotated[Configuration, Field(description="hyperparameters of the run")]
    metrics: Annotated[RunMetrics, Field(description="costs and results of the run")]
    verdict: Annotated[Verdict, Field(description="decision of the gate, with its reasons")]
    probes: Annotated[
        tuple[Probe, ...], Field(description="prompts for the verification of deployments")
    ]
    withdrawn_through: Annotated[
        Position | None,
        Field(description="position in `dataset.withdrawals` up to which withdrawals applied"),
    ] = None
    lineage: Annotated[
        Lineage | None,
        Field(description="start of training: the parent's adapter (continue) or the base (fresh)"),
    ] = None
    parent_adapter: Annotated[
        Artefact | None, Field(description="adapter that training started from, if any")
    ] = None
    base: Annotated[str | None, Field(description="name of the base model")] = None


class TrainingRolledBack(Event):
    """A run ended without a version: rejected or inconclusive at the gate, or failed. The champion
    stays. Lineage, parent and base are as in `CheckpointSaved`, also for a failed run.
    """

    model: Annotated[Name, Field(description="name of the model")]
    model_digest: Annotated[Digest, Field(description="digest of the model file in use")]
    run_id: Annotated[Id, Field(description="id of the run")]
    batch_id: Annotated[Id, Field(description="batch that was trained on")]
    lane: Annotated[Lane, Field(description="training lane")]
    parent_version: Annotated[str, Field(description="champion when training started")]
    evaluation: Annotated[
        Count, Field(description="as in `CheckpointSaved`; 0 for a run without an evaluation")
    ]
    outcome: Annotated[
        Literal["rejected", "inconclusive", "failed"],
        Field(description="reason for the missing version"),
    ]
    reason: Annotated[str, Field(description="reason in plain text")]
    advice: Annotated[str, Field(description="recommended action")] = ""
    adapter: Annotated[Artefact | None, Field(description="adapter of the candidate, if any")] = (
        None
    )
    configuration: Annotated[Configuration, Field(description="hyperparameters of the run")]
    metrics: Annotated[RunMetrics | None, Field(description="costs and results of the run")] = None
    verdict: Annotated[
        Verdict | None, Field(description="decision of the gate, with its reasons")
    ] = None
    lineage: Annotated[
        Lineage | None,
        Field(description="start of training: the parent's adapter (continue) or the base (fresh)"),
    ] = None
    parent_adapter: Annotated[
        Artefact | None, Field(description="adapter that training started from, if any")
    ] = None
    base: Annotated[str | None, Field(description="name of the base model")] = None
    base_digest: Annotated[Digest | None, Field(description="digest of that base")] = None
