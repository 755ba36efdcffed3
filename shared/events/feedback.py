"""What people and checks say of answers, and what it is worth.

applications ──▶ feedback.received ──▶ feedback ──▶ feedback.scored ──▶ dataset
"""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, FiniteFloat, ValidationInfo, field_validator, model_validator

from shared.events.base import MAX_ID, Count, Digest, Event, Id, Name, Position, Reward, Share, Value

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
    corrected_output: Annotated[str, Field(min_length=1)] | None = Field(default=None, validate_default=True)
    user_id: Id | None = None
    conversation_id: Id | None = None
    response_id: Id | None = None
    tags: dict[str, str] | None = None

    @field_validator("corrected_output")
    @classmethod
    def _correction_has_a_text(cls, said: str | None, info: ValidationInfo) -> str | None:
        if said is None and info.data.get("feedback_type") == "correction":
            raise ValueError("corrected_output is required when feedback_type is 'correction'")
        return said

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation up to the answer; a plain string counts as one turn of the user."""
        return (Message(role="user", content=self.input),) if isinstance(self.input, str) else self.input

    @property
    def key(self) -> str:
        """What feedback goes out under: that of one conversation, or else of one user, stays in order."""
        return self.conversation_id or self.user_id or self.event_id


class UserForgotten(Event):
    """A user's feedback shall be used no more: that on `model`, or on every model where none is named. `user_id` is the one that
    the user's feedback came with; `reason` is kept and shown, so it should not say who the user is."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    user_id: Id
    model: Name | None = None
    reason: Annotated[str, Field(max_length=2000)] | None = None


class RewardPart(Value):
    """One named reason for a reward, worth `value` and counting `weight`. `reason` says what decided, where the value alone does not."""

    name: str
    value: Reward
    weight: Annotated[FiniteFloat, Field(ge=0)]
    reason: str | None = None


class PolicyRef(Value):
    """The reward policy that decided."""

    name: str
    version: int


def identity_of(source: str, event_id: str) -> str:
    """What a received event is called from here on: the application's id, with the CloudEvents source where there was one."""
    return f"{source}|{event_id}" if source else event_id


class FeedbackScored(FeedbackReceived):
    """Feedback with its worth. `event_id` is the feedback's own; with `source` it is unique. Each part has a name of its own; `reward`
    is what `shared.reward.mean_reward` makes of them."""

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

    @model_validator(mode="after")
    def _parts_have_names_of_their_own(self) -> Self:
        if len({part.name for part in self.parts}) < len(self.parts):
            raise ValueError("two parts of the reward have the same name")
        return self

    @property
    def identity(self) -> str:
        return identity_of(self.source, self.event_id)


class WithdrawalRequested(Event):
    """One shard's share of a `UserForgotten`: what the user said there before this event's place in the log is to be withdrawn.

    `forgotten` is the id of the `UserForgotten`, with its source as in `FeedbackScored.identity`, and `received` where it stood: one
    that was sent to several partitions makes a request for each.
    """

    model: Name
    shard: Count
    user_id: Id
    forgotten: Id
    received: Position
    reason: str | None = None


class WaitEnded(Event):
    """Time has passed in a shard without any feedback, and an example has waited as long as its model file allows. It says so in the log,
    whose clock would stand still otherwise."""

    model: Name
    shard: Count
