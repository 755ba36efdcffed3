"""The events, in the order of the flow. Frozen, in the past tense; each names the ids that led to it.

`FeedbackReceived` is written by strangers and ignores fields that it does not know; in all others an unknown field is an error.
"""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from shared.training_config import Lane, TrainingConfig

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
MAX_ID = 256
Id = Annotated[str, Field(min_length=1, max_length=MAX_ID)]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Share = Annotated[FiniteFloat, Field(ge=0, le=1)]
Reward = Annotated[FiniteFloat, Field(ge=-1, le=1)]
Count = Annotated[int, Field(ge=0)]


class Value(BaseModel):
    """A part of an event: frozen, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Event(Value):
    """What every event carries: an id that is the same whenever the same thing is said again, and when it happened."""

    schema_version: ClassVar[int] = 1

    event_id: Id
    occurred_at: AwareDatetime

    @classmethod
    def type_name(cls) -> str:
        """The CloudEvents `type`."""
        return f"ratchet.{cls.__name__}.v{cls.schema_version}"


# ── applications ──▶ feedback.received ──▶ feedback ───────────────────────────────────────────────────────────────────

FeedbackType = Literal["validation", "thumbs_up", "thumbs_down", "correction", "accepted", "regenerated", "retracted"]


class Message(Value):
    """One turn of a conversation."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    role: Literal["system", "user", "assistant", "tool"]
    content: str


class FeedbackReceived(Event):
    """What a person or a check said about one answer."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: Name
    model_version: Id | None = None
    input: Annotated[str, Field(min_length=1)] | Annotated[tuple[Message, ...], Field(min_length=1)]
    output: str
    feedback_type: FeedbackType
    validation_score: Share | None = None
    corrected_output: Annotated[str, Field(min_length=1)] | None = None
    user_id: Id | None = None
    conversation_id: Id | None = None
    response_id: Id | None = None
    tags: dict[str, str] | None = None

    @model_validator(mode="after")
    def _correction_has_a_text(self) -> Self:
        if self.feedback_type == "correction" and self.corrected_output is None:
            raise ValueError("corrected_output is required when feedback_type is 'correction'")
        return self

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation up to the answer; a plain string counts as one turn of the user."""
        return (Message(role="user", content=self.input),) if isinstance(self.input, str) else self.input


# ── feedback ──▶ feedback.scored ──▶ dataset ──────────────────────────────────────────────────────────────────────────


class RewardPart(Value):
    """One named reason for a reward: `weight` times `value`."""

    name: str
    value: Reward
    weight: Annotated[FiniteFloat, Field(ge=0)]


class PolicyRef(Value):
    """The reward policy that decided."""

    name: str
    version: int


class Position(Value):
    """A place in a log."""

    topic: str
    partition: Count
    offset: Count


class FeedbackScored(FeedbackReceived):
    """Feedback with its worth. `event_id` is the feedback's own; with `source` it is unique."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = ""
    shard: Count
    reward: Reward
    parts: tuple[RewardPart, ...]
    policy: PolicyRef
    model_digest: Digest
    received: Position

    @model_validator(mode="after")
    def _identity_is_an_id(self) -> Self:
        if len(self.identity) > MAX_ID:
            raise ValueError(f"source and event_id together are longer than {MAX_ID - 1} characters")
        return self

    @property
    def identity(self) -> str:
        """What this feedback is called from here on: the application's id, with the CloudEvents source where there was one."""
        return f"{self.source}|{self.event_id}" if self.source else self.event_id


# ── dataset ──▶ training.batches ──▶ trainer ──────────────────────────────────────────────────────────────────────────


class Artefact(Value):
    """An object in the object store and the digest of its bytes (of its manifest, for a folder)."""

    uri: str
    digest: Digest


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


# ── trainer ──▶ training.progress, training.checkpoints, training.rollbacks ──▶ registry ──────────────────────────────

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


class RunMetrics(Value):
    """What a run cost and how it went. Loss is mean cross-entropy per answer token, in nats."""

    training_loss: FiniteFloat
    steps: Count
    epochs: Count
    examples_new: Count
    examples_replayed: Count
    tokens: Count
    train_seconds: FiniteFloat
    evaluate_seconds: FiniteFloat


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


Decision = Literal["promote", "reject", "inconclusive"]


class Verdict(Value):
    """What the gate decided, against which version, and the numbers that decided it."""

    decision: Decision
    baseline_version: str
    confidence: Share
    reasons: tuple[str, ...]
    comparisons: tuple[Comparison, ...]


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
    again when the champion has moved meanwhile."""

    model: Name
    model_digest: Digest
    run_id: Id
    batch_id: Id
    lane: Lane
    parent_version: str
    evaluation: Annotated[int, Field(ge=1)]
    adapter: Artefact
    base_digest: Digest
    configuration: TrainingConfig
    metrics: RunMetrics
    verdict: Verdict
    probes: tuple[Probe, ...]


class TrainingRolledBack(Event):
    """A run ended without a version: rejected or inconclusive at the gate, or failed. What is served stays."""

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
    configuration: TrainingConfig
    metrics: RunMetrics | None = None
    verdict: Verdict | None = None


# ── registry ──▶ models.versions ──▶ everyone ─────────────────────────────────────────────────────────────────────────


class VersionRegistered(Event):
    """A version exists. It is the registry's answer to the outcome `run_id`, `evaluation`:
    `promoted` (a VersionPromoted follows), or `reevaluate` against `champion`, which has moved since the verdict.
    Version 0 is the base itself: it has no run."""

    model: Name
    version: str
    number: Count
    run_id: Id | None = None
    batch_id: Id | None = None
    evaluation: Count = 0
    parent_version: str | None = None
    adapter: Artefact | None = None
    answer: Literal["promoted", "reevaluate"]
    champion: str


class VersionPromoted(Event):
    """`version` is the champion now; `previous` was."""

    model: Name
    version: str
    previous: str | None = None
    adapter: Artefact | None = None
    run_id: Id | None = None
    actor: str
    reason: str


class VersionRolledBack(Event):
    """The champion went back (or forward again) from `from_version` to `version` by a decision about versions that exist."""

    model: Name
    version: str
    from_version: str
    adapter: Artefact | None = None
    actor: str
    reason: str


class VersionDeployed(Event):
    """`version` answers at `target`, verified as its evaluation was. `digest` is that of the file which is served."""

    model: Name
    version: str
    target: str
    served_name: str
    digest: Digest
    seconds: FiniteFloat


class DeploymentFailed(Event):
    """`version` could not be served at `target`; `serving` is what answers there."""

    model: Name
    version: str
    target: str
    step: Literal["probe", "push", "verify", "switch"]
    reason: str
    serving: str | None = None


EVENTS: tuple[type[Event], ...] = (
    FeedbackReceived,
    FeedbackScored,
    BatchReady,
    TrainingProgressed,
    CheckpointSaved,
    TrainingRolledBack,
    VersionRegistered,
    VersionPromoted,
    VersionRolledBack,
    VersionDeployed,
    DeploymentFailed,
)
