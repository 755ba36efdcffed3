"""What people and checks say of answers, and what it is worth.

applications ──▶ feedback.received ──▶ feedback ──▶ feedback.scored ──▶ dataset
"""

from typing import Annotated, Literal, Self

from pydantic import (
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.config import JsonDict

from shared.events.base import (
    MAX_ID,
    Count,
    Digest,
    Event,
    FrozenModel,
    Id,
    Name,
    Position,
    Reward,
    Share,
)

FeedbackType = Literal[
    "validation", "thumbs_up", "thumbs_down", "correction", "accepted", "regenerated", "retracted"
]


# What `_correction_has_a_text` checks, in the words of JSON Schema.
_CORRECTION: JsonDict = {
    "if": {"properties": {"feedback_type": {"const": "correction"}}, "required": ["feedback_type"]},
    "then": {
        "properties": {"corrected_output": {"type": "string"}},
        "required": ["corrected_output"],
    },
}


class Message(FrozenModel):
    """One turn of a conversation."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    role: Annotated[Literal["system", "user", "assistant", "tool"], Field(description="who speaks")]
    content: Annotated[str, Field(description="what is said")]


class FeedbackReceived(Event):
    """What a person or a check said about one answer."""

    model_config = ConfigDict(frozen=True, extra="ignore", json_schema_extra=_CORRECTION)

    model: Annotated[
        Name, Field(description="the model's name, as its file in `models/` is called")
    ]
    model_version: Annotated[
        Id | None,
        Field(
            description="which version answered; by it the registry watches how versions do in use"
        ),
    ] = None
    input: Annotated[
        Annotated[str, Field(min_length=1)] | Annotated[tuple[Message, ...], Field(min_length=1)],
        Field(description="the prompt, or the conversation up to the answer"),
    ]
    output: Annotated[str, Field(description="the answer")]
    feedback_type: Annotated[
        FeedbackType, Field(description="what was done or said about the answer")
    ]
    validation_score: Annotated[Share | None, Field(description="what an automatic check gave")] = (
        None
    )
    corrected_output: Annotated[
        Annotated[str, Field(min_length=1)] | None,
        Field(description="what the answer should have been; required for `correction`"),
    ] = Field(default=None, validate_default=True)
    user_id: Annotated[Id | None, Field(description="who says so")] = None
    conversation_id: Annotated[
        Id | None, Field(description="the conversation that the answer belongs to")
    ] = None
    response_id: Annotated[
        Id | None, Field(description="the answer itself, where it is judged from several sides")
    ] = None
    tags: Annotated[
        dict[str, str] | None, Field(description="whatever else the application knows")
    ] = None

    @field_validator("corrected_output")
    @classmethod
    def _correction_has_a_text(cls, said: str | None, info: ValidationInfo) -> str | None:
        if said is None and info.data.get("feedback_type") == "correction":
            raise ValueError("corrected_output is required when feedback_type is 'correction'")
        return said

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation up to the answer; a plain string counts as one turn of the user."""
        return (
            (Message(role="user", content=self.input),)
            if isinstance(self.input, str)
            else self.input
        )

    @property
    def key(self) -> str:
        """What feedback goes out under: that of one conversation, or else of one user, stays in
        order.
        """
        return self.conversation_id or self.user_id or self.event_id


class UserForgotten(Event):
    """A user's feedback shall be used no more: that on `model`, or on every model where none is
    named. `user_id` is the one that the user's feedback came with; `reason` is kept and shown, so
    it should not say who the user is.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    user_id: Annotated[Id, Field(description="the id that the user's feedback came with")]
    model: Annotated[
        Name | None,
        Field(description="only what was said of this model; of every model where it is left out"),
    ] = None
    reason: Annotated[
        Annotated[str, Field(max_length=2000)] | None,
        Field(description="why; it is kept and shown, so it should not say who the user is"),
    ] = None


class RewardPart(FrozenModel):
    """One named reason for a reward, worth `value` and counting `weight`. `reason` says what
    decided, where the value alone does not.
    """

    name: Annotated[
        str,
        Field(description="which part of the policy it is; no two parts of a reward have the same"),
    ]
    value: Annotated[Reward, Field(description="what this part alone would give")]
    weight: Annotated[FiniteFloat, Field(ge=0, description="how much it counts")]
    reason: Annotated[
        str | None, Field(description="what decided, where the value alone does not say")
    ] = None


class PolicyRef(FrozenModel):
    """The reward policy that decided."""

    name: Annotated[str, Field(description="the policy's name in the model file")]
    version: Annotated[int, Field(description="the version that it has there")]


def feedback_id_of(source: str, event_id: str) -> str:
    """What a received event is called from here on: the application's id, with the CloudEvents
    source where there was one.
    """
    return f"{source}|{event_id}" if source else event_id


class FeedbackScored(FeedbackReceived):
    """Feedback with its worth. `event_id` is the feedback's own; with `source` it is unique. Each
    part has a name of its own; `reward` is what `shared.reward.mean_reward` makes of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Annotated[
        str,
        Field(
            description="the CloudEvents `source` that the feedback came with; empty for bare JSON"
        ),
    ] = ""
    shard: Annotated[Count, Field(description="which of the model's shards it belongs to")]
    reward: Annotated[
        Reward,
        Field(description="what the feedback is worth: the mean of the parts by their weights"),
    ]
    parts: Annotated[tuple[RewardPart, ...], Field(description="what the reward is made of")]
    policy: Annotated[PolicyRef, Field(description="the reward policy that decided")]
    model_digest: Annotated[Digest, Field(description="of the model file that was in force")]
    received: Annotated[
        Position, Field(description="where the feedback stood on `feedback.received`")
    ]

    @model_validator(mode="after")
    def _identity_is_an_id(self) -> Self:
        if len(self.identity) > MAX_ID:
            raise ValueError(
                f"source and event_id together are longer than {MAX_ID - 1} characters"
            )
        return self

    @model_validator(mode="after")
    def _parts_have_names_of_their_own(self) -> Self:
        if len({part.name for part in self.parts}) < len(self.parts):
            raise ValueError("two parts of the reward have the same name")
        return self

    @property
    def identity(self) -> str:
        return feedback_id_of(self.source, self.event_id)


class WithdrawalRequested(Event):
    """One shard's share of a `UserForgotten`: what the user said there before this event's place in
    the log is to be withdrawn.

    `forgotten` is the id of the `UserForgotten`, with its source as in `FeedbackScored.identity`,
    and `received` where it stood: one that was sent to several partitions makes a request for each.
    """

    model: Annotated[Name, Field(description="the model's name")]
    shard: Annotated[Count, Field(description="the shard whose share this is")]
    user_id: Annotated[Id, Field(description="the id that the user's scored feedback has")]
    forgotten: Annotated[
        Id, Field(description="the id of the `UserForgotten`, with its source where there was one")
    ]
    received: Annotated[Position, Field(description="where the `UserForgotten` stood")]
    reason: Annotated[str | None, Field(description="as the user's request gives it")] = None


class WaitEnded(Event):
    """Time has passed in a shard without any feedback, and an example has waited as long as its
    model file allows. It says so in the log, whose clock would stand still otherwise.
    """

    model: Annotated[Name, Field(description="the model's name")]
    shard: Annotated[Count, Field(description="the shard in which the wait has ended")]
