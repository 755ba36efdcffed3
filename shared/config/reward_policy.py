"""How a model's feedback is rewarded: a part of the model's file."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, FiniteFloat, JsonValue

from shared.config.answer_format import checked_pattern, checked_schema
from shared.events import FrozenModel, Reward

Weight = Annotated[FiniteFloat, Field(ge=0)]


class ActionRewards(FrozenModel):
    """What each thing that a person does with an answer says about it."""

    thumbs_up: Reward = 1.0
    thumbs_down: Reward = -1.0
    accepted: Reward = 1.0
    regenerated: Reward = -0.5


class RewardPolicy(FrozenModel):
    """Weights of a reward's parts, what actions are worth, and the format that answers must have."""

    name: str = "default"
    version: Annotated[int, Field(ge=1)] = 1
    validation: Weight = 1.0
    action: Weight = 1.0
    correction: Annotated[Weight | None, Field(description="without one, the weight of action")] = (
        None
    )
    rules: Weight = 0.5
    actions: ActionRewards = ActionRewards()
    format: Annotated[
        Literal["json"] | None,
        Field(description="json: an answer is a JSON object and nothing else"),
    ] = None
    json_schema: Annotated[
        Annotated[Mapping[str, JsonValue], AfterValidator(checked_schema)] | None,
        Field(description="an answer is JSON that this JSON Schema allows"),
    ] = None
    pattern: Annotated[
        Annotated[str, AfterValidator(checked_pattern)] | None,
        Field(
            description="an answer has a place where this regular expression matches; ^ and $ tie it to "
            "the whole"
        ),
    ] = None

    @property
    def correction_weight(self) -> float:
        return self.action if self.correction is None else self.correction

    @property
    def summary(self) -> str:
        """The policy in a line."""
        weights = {
            "validation": self.validation,
            "action": self.action,
            "correction": self.correction_weight,
            "rules": self.rules,
        }
        demands = {
            "JSON": self.format or self.json_schema,
            "a JSON Schema": self.json_schema,
            "a pattern": self.pattern,
        }
        demanded = [demand for demand, given in demands.items() if given]
        weighed = ", ".join(f"{part} {weight:g}" for part, weight in weights.items())
        return (
            f"reward policy {self.name} v{self.version} ({weighed}; format: "
            f"{' and '.join(demanded) or 'any'})"
        )
