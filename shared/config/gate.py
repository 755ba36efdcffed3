"""Gate settings of a model file: sets, margins, and the reward-hacking rule."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    FiniteFloat,
    model_validator,
)

from shared.config.renamed_keys import both_names, without_duplicate_keys
from shared.events import FrozenModel

Margin = Annotated[FiniteFloat, Field(ge=0)]


AnswerMeasure = Literal["bleu", "chrf", "exact_match", "json_validity"]


class DecidingMeasure(FrozenModel):
    """Role of a measure of greedy answers in the gate's decision.

    The margin is in the unit of the measure: points of BLEU and chrF, else a share.
    """

    margin: Annotated[
        FiniteFloat,
        Field(ge=0, description="tolerated decline on the held-out or golden set"),
    ]
    promotes: Annotated[
        bool,
        Field(
            description="true if an improvement in this measure suffices for promotion; it then "
            "takes its part of the error"
        ),
    ] = False


class RewardHackingRule(FrozenModel):
    """Thresholds of the reward hacking alarm.

    Reward hacking is suspected when the reward of the learned examples rises while the held-out
    score does not follow.
    """

    versions: Annotated[
        int,
        Field(ge=3, le=100, description="number of the latest evaluated candidates in the trend"),
    ] = 4
    reward_rise: Annotated[
        FiniteFloat,
        Field(gt=0, le=2, description="rise of the mean reward over them that counts as rising"),
    ] = 0.1
    held_out_gain: Annotated[
        FiniteFloat,
        Field(
            description="gain on held-out over them, in nats per answer token, up to which it "
            "counts as flat or falling"
        ),
    ] = 0.0
    blocks: Annotated[bool, Field(description="block promotion; if false, only report")] = True


class GateSettings(FrozenModel):
    """Evaluation sets and margins of the gate.

    Margins are nats of mean log-likelihood per answer token.
    """

    confidence: Annotated[
        FiniteFloat, Field(gt=0.5, lt=1, description="1 minus the error of the gate's promotions")
    ] = 0.95
    minimum_examples: Annotated[
        int, Field(ge=2, description="smallest set on which an improvement can promote")
    ] = 12
    held_out_newest: Annotated[
        int,
        Field(
            ge=1,
            description="number of the newest held-out examples that a candidate is evaluated on",
        ),
    ] = 500
    improvement_margin: Annotated[
        Margin, Field(description="smallest improvement that promotes, in nats per answer token")
    ] = 0.005
    harm_margin: Annotated[
        Margin,
        Field(
            description="tolerated decline on held-out and golden sets, in nats per answer token"
        ),
    ] = 0.02
    regression_margin: Annotated[
        Margin,
        Field(
            description="tolerated decline on the regression set, in nats per answer token",
            validation_alias=both_names("gate", "regression_margin"),
        ),
    ] = 0.5
    golden: Annotated[
        str | None,
        Field(description="JSON Lines of {messages, answer}, relative to the model file's folder"),
    ] = None
    regression_set: Annotated[
        str | None,
        Field(
            description="JSON Lines of {messages}; the base's own answers are the reference",
            validation_alias=both_names("gate", "regression_set"),
        ),
    ] = None
    regression_prompts: Annotated[
        str | None,
        Field(
            description="JSON Lines of {messages, must_contain, must_not_contain}",
            validation_alias=both_names("gate", "regression_prompts"),
        ),
    ] = None
    probes: Annotated[
        int, Field(ge=1, le=32, description="number of prompts whose answers verify a deployment")
    ] = 4
    answered: Annotated[
        int,
        Field(
            ge=0,
            le=1000,
            description="maximum number of held-out and of golden examples that are answered, each",
        ),
    ] = 8
    answer_tokens: Annotated[
        int, Field(ge=1, le=4096, description="maximum length of a measured answer in tokens")
    ] = 48
    deciding: Annotated[
        Mapping[AnswerMeasure, DecidingMeasure],
        Field(description="answer measures that take part in the decision besides log-likelihood"),
    ] = {}
    reward_hacking: Annotated[
        RewardHackingRule,
        Field(
            description="alarm when rewards rise and held-out results do not",
            validation_alias=both_names("gate", "reward_hacking"),
        ),
    ] = RewardHackingRule()

    @model_validator(mode="before")
    @classmethod
    def _one_spelling_per_key(cls, values: Any) -> Any:
        return without_duplicate_keys(values, "gate")

    @model_validator(mode="after")
    def _answers_suffice(self) -> Self:
        if self.deciding and not self.answered:
            raise ValueError(
                f"deciding: {', '.join(self.deciding)} needs answers; raise `answered` above 0"
            )
        promoting = [name for name, deciding in self.deciding.items() if deciding.promotes]
        if promoting and self.answered < self.minimum_examples:
            raise ValueError(
                f"deciding: {', '.join(promoting)} cannot promote; raise `answered` to at least "
                "`minimum_examples`"
            )
        return self
