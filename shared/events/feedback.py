"""Feedback events: ratings of answers, and their reward.

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


# The rule of `_correction_has_a_text` in JSON Schema.
_CORRECTION: JsonDict = {
    "if": {"properties": {"feedback_type": {"const": "correction"}}, "required": ["feedback_type"]},
    "then": {
        "properties": {"corrected_output": {"type": "string"}},
        "required": ["corrected_output"],
    },
}


class Message(FrozenModel):
    """One message of a conversation."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    role: Annotated[
        Literal["system", "user", "assistant", "tool"], Field(description="role of the author")
    ]
    content: Annotated[str, Field(description="text of the message")]


class FeedbackReceived(Event):
    """Feedback of a user or of an automatic check on one answer."""

    model_config = ConfigDict(frozen=True, extra="ignore", json_schema_extra=_CORRECTION)

    model: Annotated[Name, Field(description="name of the model, as in its file in `models/`")]
    model_version: Annotated[
        Id | None,
        Field(description="version that gave the answer; the live monitor compares versions by it"),
    ] = None
    input: Annotated[
        Annotated[str, Field(min_length=1)] | Annotated[tuple[Message, ...], Field(min_length=1)],
        Field(description="the prompt, or the conversation up to the answer"),
    ]
    output: Annotated[str, Field(description="the answer")]
    feedback_type: Annotated[FeedbackType, Field(description="kind of feedback")]
    validation_score: Annotated[Share | None, Field(description="result of an automatic check")] = (
        None
    )
    corrected_output: Annotated[
        Annotated[str, Field(min_length=1)] | None,
        Field(
            description="the corrected answer; required for `correction`; with another action of a "
            "user, it makes a correction of it"
        ),
    ] = Field(default=None, validate_default=True)
    comment: Annotated[
        str | None, Field(description="the user's words about the answer; never trained on")
    ] = None
    user_id: Annotated[Id | None, Field(description="author of the feedback")] = None
    conversation_id: Annotated[Id | None, Field(description="conversation of the answer")] = None
    response_id: Annotated[
        Id | None,
        Field(description="id of the answer, to combine several pieces of feedback on it"),
    ] = None
    tags: Annotated[
        dict[str, str] | None, Field(description="further labels of the application")
    ] = None

    @field_validator("corrected_output")
    @classmethod
    def _correction_has_a_text(cls, text: str | None, info: ValidationInfo) -> str | None:
        if text is None and info.data.get("feedback_type") == "correction":
            raise ValueError("corrected_output is required when feedback_type is 'correction'")
        return text

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation up to the answer; a plain string counts as one user message."""
        return (
            (Message(role="user", content=self.input),)
            if isinstance(self.input, str)
            else self.input
        )

    @property
    def key(self) -> str:
        """Record key that keeps the feedback of one conversation, or else of one user, in order."""
        return self.conversation_id or self.user_id or self.event_id


class UserForgotten(Event):
    """A request to erase a user's feedback on `model`, or on every model if none is given.
    `user_id` is the id in the user's feedback; `reason` is stored and displayed, so it should not
    identify the user.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    user_id: Annotated[Id, Field(description="user id in the user's feedback")]
    model: Annotated[
        Name | None,
        Field(description="restricts the request to one model; default: every model"),
    ] = None
    reason: Annotated[
        Annotated[str, Field(max_length=2000)] | None,
        Field(description="reason; stored and displayed, so it should not identify the user"),
    ] = None


class RewardPart(FrozenModel):
    """One named part of a reward, with its `value` and `weight`. `reason` explains the value where
    it is not obvious.
    """

    name: Annotated[
        str,
        Field(description="part of the policy; unique within a reward"),
    ]
    value: Annotated[Reward, Field(description="reward of this part alone")]
    weight: Annotated[FiniteFloat, Field(ge=0, description="weight of the part")]
    reason: Annotated[
        str | None, Field(description="explanation, where the value alone is not clear")
    ] = None


class PolicyRef(FrozenModel):
    """The reward policy that was applied."""

    name: Annotated[str, Field(description="name of the policy in the model file")]
    version: Annotated[int, Field(description="version of the policy in the model file")]


def feedback_id_of(source: str, event_id: str) -> str:
    """Return the id of received feedback within Ratchet: the event id, prefixed with the
    CloudEvents source if it has one.
    """
    return f"{source}|{event_id}" if source else event_id


class FeedbackScored(FeedbackReceived):
    """Feedback with its reward. `event_id` is that of the received feedback, unique together with
    `source`. Parts have distinct names; `reward` is their weighted mean
    (`shared.reward.mean_reward`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Annotated[
        str,
        Field(description="CloudEvents `source` of the feedback; empty for bare JSON"),
    ] = ""
    shard: Annotated[Count, Field(description="shard of the model")]
    reward: Annotated[
        Reward,
        Field(description="reward: weighted mean of the parts"),
    ]
    parts: Annotated[tuple[RewardPart, ...], Field(description="parts of the reward")]
    policy: Annotated[PolicyRef, Field(description="the reward policy that was applied")]
    model_digest: Annotated[Digest, Field(description="digest of the model file in use")]
    received: Annotated[
        Position, Field(description="position of the feedback on `feedback.received`")
    ]

    @model_validator(mode="after")
    def _identity_is_an_id(self) -> Self:
        if len(self.identity) > MAX_ID:
            raise ValueError(
                f"source and event_id together are longer than {MAX_ID - 1} characters"
            )
        return self

    @model_validator(mode="after")
    def _parts_have_unique_names(self) -> Self:
        if len({part.name for part in self.parts}) < len(self.parts):
            raise ValueError("two parts of the reward have the same name")
        return self

    @property
    def identity(self) -> str:
        return feedback_id_of(self.source, self.event_id)


class WithdrawalRequested(Event):
    """A `UserForgotten` for one shard: the user's feedback at earlier offsets of this log is to be
    withdrawn.

    `forgotten` is the id of the `UserForgotten`, with its source as in `FeedbackScored.identity`,
    and `received` its position. An event sent to several partitions causes one request for each.
    """

    model: Annotated[Name, Field(description="name of the model")]
    shard: Annotated[Count, Field(description="shard that the request is for")]
    user_id: Annotated[Id, Field(description="user id in the user's scored feedback")]
    forgotten: Annotated[
        Id, Field(description="id of the `UserForgotten`, prefixed with its source if it has one")
    ]
    received: Annotated[Position, Field(description="position of the `UserForgotten`")]
    reason: Annotated[str | None, Field(description="reason given in the request")] = None


class WaitEnded(Event):
    """No feedback arrived in a shard, and an example has waited as long as its model file allows.
    The event advances the clock of the log, which would not advance otherwise.
    """

    model: Annotated[Name, Field(description="name of the model")]
    shard: Annotated[Count, Field(description="shard in which the wait ended")]
